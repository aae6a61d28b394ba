"""Values of options: conversion from text, and the bounds of numbers."""

import argparse
import dataclasses
import math
from typing import Optional, Tuple


def str2bool(text: object) -> bool:
    """Read yes/true/t/y/1 and no/false/f/n/0 in any case."""
    if isinstance(text, bool):
        return text
    low = str(text).lower()
    if low in ("yes", "true", "t", "y", "1"):
        return True
    if low in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected a boolean such as 1, 0, true or false, got {text!r}")


def int_tuple(text: object) -> Tuple[int, ...]:
    """Read a comma-separated list of integers: ``"2,2,3"`` -> ``(2, 2, 3)``, ``""`` -> ``()``."""
    if isinstance(text, (list, tuple)):
        return tuple(int(part) for part in text)
    try:
        return tuple(int(part) for part in str(text).split(",")) if str(text).strip() else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers separated by commas, got {text!r}") from None


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The numbers that an option accepts.

    Attributes:
      at_least, above: lower bounds, inclusive and exclusive.
      at_most, below: upper bounds, inclusive and exclusive.
      unless: a value outside the bounds that is accepted, too, such as 0 for "never".
    """

    at_least: Optional[float] = None
    above: Optional[float] = None
    at_most: Optional[float] = None
    below: Optional[float] = None
    unless: Optional[float] = None

    def accept(self, value: float) -> bool:
        """Return whether ``value`` is within the bounds; NaN never is."""
        return value == self.unless or (
            value == value
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
        limits = [
            f"{text} {getattr(self, name):g}"
            for name, text in words.items()
            if getattr(self, name) not in (None, math.inf, -math.inf)
        ]
        if math.inf in (self.at_most, self.below):
            limits.append("finite")
        return " and ".join(limits) + (f", or {self.unless:g}" if self.unless is not None else "")


def str_tuple(text: object) -> Tuple[str, ...]:
    """Read a comma-separated list of names: ``"a, b"`` -> ``("a", "b")``, ``""`` -> ``()``."""
    parts = text if isinstance(text, (list, tuple)) else str(text).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())

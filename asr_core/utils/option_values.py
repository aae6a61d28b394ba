"""Values of options: conversion from text, and the bounds of numbers."""

import argparse
import dataclasses
import math
from typing import Mapping, Optional, Tuple

from asr_core.utils.errors import UserError

LARGEST_INT = 2**31 - 1  # of options without a bound of their own
# What no machine has, so that larger numbers are slips of the finger
MAX_PROCESSES = 1024  # processes or threads on one machine
MAX_WIDTH = 65_536  # channels of a layer
MAX_LAYERS = 1024  # layers, heads, or taps of a convolution


def flag(name: str) -> str:
    """Return the option for field ``name``: ``"beam_size"`` -> ``"--beam-size"``."""
    return "--" + name.replace("_", "-")


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
      at_most, below: upper bounds, inclusive and exclusive. Whole numbers have one anyway, so that
        a slip of the finger asks for no array of a terabyte.
      unless: a value outside the bounds that is accepted, too, such as 0 for "never".
      finite: whether infinity is refused; NaN always is.
    """

    at_least: Optional[float] = None
    above: Optional[float] = None
    at_most: Optional[float] = None
    below: Optional[float] = None
    unless: Optional[float] = None
    finite: bool = True

    def accept(self, value: float) -> bool:
        """Return whether ``value`` is within the bounds."""
        return value == self.unless or (
            not math.isnan(value)
            and not (self.finite and math.isinf(value))
            and (not isinstance(value, int) or abs(value) <= LARGEST_INT or self.at_most is not None)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def describe(self, value: float) -> str:
        """Say which numbers are accepted, to someone who gave ``value``."""
        words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
        limits = [
            f"{text} {getattr(self, name):.10g}"
            for name, text in words.items()
            if getattr(self, name) is not None
        ]
        if self.at_most is None and self.below is None:
            if isinstance(value, float) and not math.isfinite(value):
                limits.append("finite" if self.finite else "a number")
            if isinstance(value, int) and abs(value) > LARGEST_INT:
                limits.append(f"at most {LARGEST_INT}" if value > 0 else f"at least {-LARGEST_INT}")
        return " and ".join(limits) + (f", or {self.unless:g}" if self.unless is not None else "")


@dataclasses.dataclass(frozen=True)
class OnlyWith:
    """The option, and its values, with which another option has an effect.

    Attributes:
      option: its name.
      values: its values; the first is the one to recommend.
    """

    option: str
    values: Tuple[object, ...] = (True,)

    def check(self, named: str, given: Mapping[str, object]) -> None:
        """Refuse an option that has no effect.

        Args:
          named: the option, for the message.
          given: the values of all options, by name; without one of :attr:`option`, nothing is
            refused.

        Raises:
          UserError: it has none.
        """
        if given.get(self.option, self.values[0]) not in self.values:
            wanted = 1 if self.values[0] is True else self.values[0]
            raise UserError(f"{named} has no effect without {flag(self.option)} {wanted}: leave it out")


def str_tuple(text: object) -> Tuple[str, ...]:
    """Read a comma-separated list of names: ``"a, b"`` -> ``("a", "b")``, ``""`` -> ``()``."""
    parts = text if isinstance(text, (list, tuple)) else str(text).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())

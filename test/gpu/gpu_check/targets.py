"""The figures that decide whether GPUs are served well, and what each of them should be."""

from typing import Any, Dict, List, NamedTuple, Optional

MISSED, HELD, REPORTED, UNKNOWN = "**no**", "yes", "", "not measured"


class Target(NamedTuple):
    """A figure of the tables.

    Attributes:
      about: what it is.
      part, item, column: its place; no column: that the item is green.
      at_least, at_most: what it should be; neither: it is only reported.
    """

    about: str
    part: str
    item: str
    column: str = ""
    at_least: Optional[float] = None
    at_most: Optional[float] = None

    @property
    def wanted(self) -> str:
        """What it should be, in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.column else "green"

    def verdict(self, value: Any) -> str:
        """Return whether ``value`` is what it should be."""
        if value is None:
            return UNKNOWN
        if not self.column:
            return HELD if value else MISSED
        if self.at_least is not None:
            return HELD if value >= self.at_least else MISSED
        if self.at_most is not None:
            return HELD if value <= self.at_most else MISSED
        return REPORTED


_STEP = "medium, bfloat16"
TARGETS = (
    Target(
        "training step of the medium Zipformer, 300 s, bfloat16: times faster than plain eager torch",
        "steps",
        _STEP,
        "faster than plain by",
        at_least=2,
    ),
    Target("its audio seconds per second", "steps", _STEP, "audio s/s"),
    Target("its MFU", "steps", _STEP, "MFU"),
    Target("ScaledAdam's share of it", "steps", _STEP, "optimizer share", at_most=0.05),
    Target(
        "loss and gradients at N 30, T 400, U 80, V 500, window 5, float32: times faster than plain torch",
        "losses",
        "pruned, float32",
        "faster than plain by",
        at_least=3,
    ),
    Target("the same in bfloat16", "losses", "pruned, bfloat16", "faster than plain by", at_least=3),
    Target(
        "full loss: times faster than torchaudio's",
        "losses",
        "full, against torchaudio",
        "faster than torchaudio by",
    ),
    Target(
        "greedy search, medium Zipformer, bfloat16: seconds of audio per second",
        "rtfx",
        "medium bfloat16, greedy_search",
        "greedy_search",
        at_least=4000,
    ),
    *(
        Target(f"the loss falls in fifty steps, {dtype}", f"training-{dtype}", "whole run")
        for dtype in ("float32", "bfloat16", "float16")
    ),
    *(
        Target(f"a stopped run goes on exactly, {dtype}", f"training-{dtype}", "stopped and resumed")
        for dtype in ("float32", "bfloat16", "float16")
    ),
    Target("two processes on one GPU by gloo", "processes", "gloo, two processes on one GPU"),
    Target("one process by NCCL", "processes", "NCCL, one rank"),
    Target("a divided model by NCCL", "processes", "NCCL, one rank, divided model"),
    Target(
        "host synchronisations of a training step", "syncs", "host synchronisations of a step", "per step"
    ),
)


def verdicts(parts: Dict[str, Any]) -> List[Dict[str, str]]:
    """Return a row for each target, from the results of the parts."""
    found = []
    for target in TARGETS:
        rows = parts.get(target.part, {}).get("rows", [])
        row = next((row for row in rows if row["item"] == target.item), {})
        value = row.get(target.column or "ok")
        shown = "" if value is None or not target.column else f"{value:.4g}"
        found.append(
            {
                "figure": target.about,
                "measured": shown,
                "wanted": target.wanted,
                "verdict": target.verdict(value),
            }
        )
    return found


def missed(parts: Dict[str, Any]) -> List[str]:
    """Return the figures that are not what they should be; those not measured are none."""
    return [row["figure"] for row in verdicts(parts) if row["verdict"] == MISSED]

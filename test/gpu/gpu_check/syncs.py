"""Counts the warnings of torch's sync debug mode by the line of ours that causes them."""

import json
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from gpu_check.setup import ROOT


class Watch:
    """A context that counts, see :meth:`text`.

    Attributes:
      counts: synchronisations by place.
    """

    def __init__(self) -> None:
        self.counts: "Counter[str]" = Counter()
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> "Watch":
        self._caught.__enter__()
        warnings.simplefilter("always")
        usual = warnings.showwarning

        def show(message: Any, *args: Any, **kwargs: Any) -> None:
            if "synchronizing CUDA operation" in str(message):
                self.counts[_place()] += 1
            elif "called a synchronizing" not in str(message):
                usual(message, *args, **kwargs)

        warnings.showwarning = show
        return self

    def __exit__(self, *error: Any) -> None:
        self._caught.__exit__(*error)

    @property
    def total(self) -> int:
        """The number of all."""
        return sum(self.counts.values())

    def text(self, steps: int) -> str:
        """Return a line for each place, the most frequent first."""
        lines = [f"{count / steps:8.2f} a step  {place}" for place, count in self.counts.most_common()]
        return "\n".join(lines) + "\n" if lines else "none\n"

    def short(self, steps: int) -> str:
        """Return the most frequent places in a line."""
        return "; ".join(f"{place} {count / steps:.2f}" for place, count in self.counts.most_common(6))

    def write(self, path: Path) -> None:
        """Write the counts."""
        path.write_text(json.dumps(self.counts))

    @classmethod
    def read(cls, path: Path) -> "Watch":
        """Return a record that :meth:`write` wrote."""
        watch = cls()
        watch.counts.update(json.loads(path.read_text()))
        return watch


def _place() -> str:
    """Return the innermost line of asr_core on the stack, and the function it calls into."""
    frames = [f for f in traceback.extract_stack() if "gpu_check" not in f.filename]
    ours = [f for f in frames if str(ROOT / "asr_core") in f.filename]
    if not ours:
        return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    frame = ours[-1]
    name = Path(frame.filename).relative_to(ROOT)
    return f"{name}:{frame.lineno} {frame.name}: {(frame.line or '').strip()[:80]}"

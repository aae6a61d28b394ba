"""Word error rates of all decodings in an experiment's folder."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional

from asr_core.utils.errors import UserError

_ERRORS = re.compile(
    r"Errors: (\d+) insertions, (\d+) deletions, (\d+) substitutions, over (\d+) reference words"
)
# In the names of results of one decoding under several weights
_WEIGHT = re.compile(r"_(?:nnlm|lodr)_scale_[\d.]+(?=[_-])")


@dataclass(frozen=True)
class Result:
    """The counts of an errs file.

    Attributes:
      path: the file.
      insertions, deletions, substitutions: errors.
      words: reference words.
      results: number of results of the decoding, of which this is the best.
    """

    path: Path
    insertions: int
    deletions: int
    substitutions: int
    words: int
    results: int = 1

    @property
    def wer(self) -> float:
        """Word error rate in percent; NaN if there are no words."""
        if not self.words:
            return math.nan
        return 100.0 * (self.insertions + self.deletions + self.substitutions) / self.words

    @property
    def rank(self) -> float:
        """The rate by which results are ordered; one without words is the last."""
        return self.wer if self.words else math.inf


def read_results(exp_dir: Path) -> List[Result]:
    """Read the best result of each decoding from the ``errs-*.txt`` below ``exp_dir``.

    Returns:
      The results, the lowest WER first.

    Raises:
      UserError: there are no results, or a file is damaged.
    """
    decodings: Dict[Path, List[Result]] = {}
    for path in sorted(exp_dir.rglob("errs-*.txt")):
        decodings.setdefault(path.with_name(_WEIGHT.sub("", path.name)), []).append(_read(path))
    if not decodings:
        raise UserError(f"no errs-*.txt in {exp_dir}; run decode.py first")
    best = [
        replace(min(results, key=lambda r: r.rank), results=len(results)) for results in decodings.values()
    ]
    return sorted(best, key=lambda r: r.rank)


def _read(path: Path) -> Result:
    with open(path, encoding="utf-8") as f:
        f.readline()
        match = _ERRORS.match(f.readline())
    if not match:
        raise UserError(
            f"{path} is no error report: its second line should begin with 'Errors:'; decode again"
        )
    insertions, deletions, substitutions, words = map(int, match.groups())
    return Result(path, insertions, deletions, substitutions, words)


def list_results(exp_dir: Path, max_wer: Optional[float] = None) -> None:
    """Print a table of the results.

    Raises:
      UserError: there are no results, or a WER is above ``max_wer`` percent.
    """
    results = read_results(exp_dir)
    print(f"{'WER %':>7} {'ins':>5} {'del':>5} {'sub':>5} {'words':>7}  decoding")
    for r in results:
        name = str(r.path.relative_to(exp_dir).with_suffix("")).replace("errs-", "", 1)
        name += f" (best of {r.results})" if r.results > 1 else ""
        print(f"{r.wer:7.2f} {r.insertions:5d} {r.deletions:5d} {r.substitutions:5d} {r.words:7d}  {name}")
    worst = results[-1]
    if max_wer is None:
        return
    if not worst.words:
        raise UserError(f"{worst.path} has no words: nothing was scored; decode again")
    if not worst.wer <= max_wer:  # NaN neither
        raise UserError(f"WER {worst.wer:.2f} % of {worst.path} is above {max_wer:g} %")

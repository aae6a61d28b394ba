"""List the word error rates of all decodings in an experiment's folder, best first in each test set."""

import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from asr_core.bin.common import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

_ERRORS = re.compile(r"Errors: (\d+) insertions, (\d+) deletions, (\d+) substitutions, over (\d+) reference words")


class Result(NamedTuple):
    """What one errs file says."""

    path: Path
    insertions: int
    deletions: int
    substitutions: int
    words: int

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return 100.0 * (self.insertions + self.deletions + self.substitutions) / max(1, self.words)


def read_results(exp_dir: Path) -> List[Result]:
    """The results in all ``errs-*.txt`` below ``exp_dir``, ordered by WER.

    Raises:
      UserError: there are none, or one is damaged.
    """
    results = []
    for path in sorted(exp_dir.rglob("errs-*.txt")):
        with open(path, encoding="utf-8") as f:
            match = _ERRORS.match((f.readline(), f.readline())[1])
        if not match:
            raise UserError(f"{path} is no error report: its second line should begin with 'Errors:'; decode again")
        results.append(Result(path, *map(int, match.groups())))
    if not results:
        raise UserError(f"no errs-*.txt in {exp_dir}; run decode.py first")
    return sorted(results, key=lambda r: r.wer)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument("exp_dir", type=Path, help="the experiment's folder")
    parser.add_argument("--max-wer", type=float, default=None, help="fail if any WER is above so many percent")
    args = parser.parse_args(argv)
    run_program(lambda: _list(args.exp_dir, args.max_wer))


def _list(exp_dir: Path, max_wer: Optional[float]) -> None:
    results = read_results(exp_dir)
    print(f"{'WER %':>7} {'ins':>5} {'del':>5} {'sub':>5} {'words':>7}  decoding")
    for r in results:
        name = str(r.path.relative_to(exp_dir).with_suffix(""))
        print(f"{r.wer:7.2f} {r.insertions:5d} {r.deletions:5d} {r.substitutions:5d} {r.words:7d}  {name.replace('errs-', '', 1)}")
    worst = results[-1]
    if max_wer is not None and worst.wer > max_wer:
        raise UserError(f"WER {worst.wer:.2f} % of {worst.path} is above {max_wer:g} %")


if __name__ == "__main__":
    main()

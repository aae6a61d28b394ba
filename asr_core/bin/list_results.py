"""List the word error rates of all decodings in an experiment's folder, best first.

Of a decoding with several results, one for each weight of a language model, the best is listed.
"""

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

_ERRORS = re.compile(
    r"Errors: (\d+) insertions, (\d+) deletions, (\d+) substitutions, over (\d+) reference words"
)
_WEIGHT = re.compile(r"_(?:nnlm|lodr)_scale_[\d.]+(?=[_-])")


class Result(NamedTuple):
    """What one errs file says, and how many there are of this decoding."""

    path: Path
    insertions: int
    deletions: int
    substitutions: int
    words: int
    alike: int = 1

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return 100.0 * (self.insertions + self.deletions + self.substitutions) / max(1, self.words)


def read_results(exp_dir: Path) -> List[Result]:
    """The best result of each decoding, from the ``errs-*.txt`` below ``exp_dir``, ordered by WER.

    Raises:
      UserError: there are none, or one is damaged.
    """
    results: Dict[Path, List[Result]] = {}
    for path in sorted(exp_dir.rglob("errs-*.txt")):
        with open(path, encoding="utf-8") as f:
            match = _ERRORS.match((f.readline(), f.readline())[1])
        if not match:
            raise UserError(
                f"{path} is no error report: its second line should begin with 'Errors:'; decode again"
            )
        decoding = path.with_name(_WEIGHT.sub("", path.name))
        results.setdefault(decoding, []).append(Result(path, *map(int, match.groups())))
    if not results:
        raise UserError(f"no errs-*.txt in {exp_dir}; run decode.py first")
    best = [min(alike, key=lambda r: r.wer)._replace(alike=len(alike)) for alike in results.values()]
    return sorted(best, key=lambda r: r.wer)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument("exp_dir", type=Path, help="the experiment's folder")
    parser.add_argument(
        "--max-wer", type=float, default=None, help="fail if any WER is above so many percent"
    )
    args = parser.parse_args(argv)
    run_program(lambda: _list(args.exp_dir, args.max_wer))


def _list(exp_dir: Path, max_wer: Optional[float]) -> None:
    results = read_results(exp_dir)
    print(f"{'WER %':>7} {'ins':>5} {'del':>5} {'sub':>5} {'words':>7}  decoding")
    for r in results:
        name = str(r.path.relative_to(exp_dir).with_suffix("")).replace("errs-", "", 1)
        name += f" (best of {r.alike})" if r.alike > 1 else ""
        print(f"{r.wer:7.2f} {r.insertions:5d} {r.deletions:5d} {r.substitutions:5d} {r.words:7d}  {name}")
    worst = results[-1]
    if max_wer is not None and worst.wer > max_wer:
        raise UserError(f"WER {worst.wer:.2f} % of {worst.path} is above {max_wer:g} %")


if __name__ == "__main__":
    main()

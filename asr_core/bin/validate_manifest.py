"""Check cut manifests; exit status 1 and the problems found if any cut is unfit. With --bpe-model, print statistics too."""

import logging
from typing import Any, Iterator, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, str2bool


def validate(path: str, read_data: bool) -> None:
    """Check one manifest.

    Raises:
      UserError: it has problems.
    """
    from asr_core.data.manifest import iterate_cuts, validate_cuts

    number = 0

    def counted() -> Iterator[Any]:
        nonlocal number
        for cut in iterate_cuts(path):
            number += 1
            yield cut

    problems = validate_cuts(counted(), read_data)
    for problem, ids in problems.items():
        logging.error(
            "%s: %d cuts: %s (%s)",
            path,
            len(ids),
            problem,
            ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else ""),
        )
    if problems:
        raise UserError(
            f"{path}: {len({i for ids in problems.values() for i in ids})} of {number} cuts are unfit, see above"
        )
    if number == 0:
        raise UserError(f"{path}: no cuts")
    logging.info("%s: %d cuts are fine", path, number)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    parser.add_argument("manifests", nargs="+", help="cut manifests, .jsonl.gz")
    parser.add_argument(
        "--read-data", type=str2bool, default=False, metavar="BOOL", help="read all features or audio too"
    )
    parser.add_argument(
        "--bpe-model", default="", help="print statistics of the cuts, and of these tokens in them"
    )
    args = parser.parse_args(argv)
    setup_logger()

    def body() -> None:
        from asr_core.data.manifest import describe_cuts, iterate_cuts
        from asr_core.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(args.bpe_model) if args.bpe_model else None
        for path in args.manifests:
            validate(path, args.read_data)
            if tokenizer is not None:
                print(f"{path}\n{describe_cuts(iterate_cuts(path), tokenizer)}\n", flush=True)

    run_program(body)


if __name__ == "__main__":
    main()

"""Score hypotheses: error rates with bootstrap intervals, and comparisons of systems."""

from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.decoding.output.options import ScoreFilesOptions
from asr_core.utils.options import Parser, add_options, from_params


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--hyp",
        nargs="+",
        required=True,
        metavar="FILE",
        help="hypotheses: recogs-*.txt or *.jsonl of a decoding, TSV, or lines 'utterance word word ...'; "
        "all are compared with the first",
    )
    add_options(parser, ScoreFilesOptions)
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.decoding.output.score_files import score_files

        score_files(args.hyp, from_params(ScoreFilesOptions, args))

    run_program(body)


if __name__ == "__main__":
    main()

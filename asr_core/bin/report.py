"""Write HTML reports of decodings: alignments in colour, errors by word and speaker, audio players.

They open without a network.
"""

from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.decoding.output.options import ReportOptions
from asr_core.utils.options import Parser, add_options, from_params


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        help="recogs-*.txt or timestamps-*.jsonl of a decoding, or folders with recogs-*.txt, "
        "e.g. exp/greedy_search",
    )
    add_options(parser, ReportOptions)
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.decoding.output.reports import write_reports

        write_reports(args.results, from_params(ReportOptions, args))

    run_program(body)


if __name__ == "__main__":
    main()

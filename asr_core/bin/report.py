"""Write HTML reports of decodings: alignments in colour, errors by word and speaker, audio players.

They open without a network.
"""

from asr_core.cli.program import program
from asr_core.decoding.output.options import ReportOptions


def _run(opts: ReportOptions) -> None:
    from asr_core.decoding.output.reports import write_reports

    write_reports(opts)


main = program(ReportOptions, __doc__, _run, log=False)


if __name__ == "__main__":
    main()

"""Compute and store log-mel features of the parts of a corpus."""

from asr_core.cli.program import program
from asr_core.data.preparation_options import FbankOptions


def _run(opts: FbankOptions) -> None:
    from asr_core.data.compute import compute_parts

    compute_parts(opts)


main = program(FbankOptions, __doc__, _run)


if __name__ == "__main__":
    main()

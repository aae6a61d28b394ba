"""Average checkpoints into one file that any of the other programs can read."""

from typing import Mapping, Optional, Sequence

from asr_core.bin.export import parse_export
from asr_core.cli.program import run_program
from asr_core.export.options import TokensOptions


def main(defaults: Optional[Mapping[str, object]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.export.parse_export`.

    The default of ``tokens`` is ignored.
    """
    params, _ = parse_export(__doc__, TokensOptions, defaults, argv)

    def body() -> None:
        from asr_core.export.run import average_model

        average_model(params)

    run_program(body)


if __name__ == "__main__":
    main()

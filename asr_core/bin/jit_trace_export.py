"""Export a streaming transducer as three traced files for one --chunk-size.

They are {encoder,decoder,joiner}_jit_trace.pt.
"""

from typing import Mapping, Optional, Sequence

from asr_core.bin.export import parse_export
from asr_core.cli.program import run_program
from asr_core.export.options import TokensOptions


def main(defaults: Optional[Mapping[str, object]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.export.parse_export`."""
    usual = {"epoch": 28, "avg": 15, **(defaults or {})}
    params, fallback = parse_export(__doc__, TokensOptions, usual, argv)

    def body() -> None:
        from asr_core.export.run import export_traced_model

        export_traced_model(params, fallback)

    run_program(body)


if __name__ == "__main__":
    main()

"""Compile the CPU kernels beforehand, which otherwise happens when they are first used.

It does no harm to stop it, or to run it beside other programs; what is compiled already stays.
"""

from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    Parser(__doc__).parse_args(argv)

    def body() -> None:
        from asr_core.decoding.compile_kernels import compile_kernels

        print(compile_kernels())

    run_program(body)


if __name__ == "__main__":
    main()

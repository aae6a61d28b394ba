"""Transcribe audio files chunk by chunk with the three files that jit_trace_export wrote."""

import argparse
import sys
from typing import Mapping, Optional, Sequence

from asr_core.bin.transcribe import add_arguments
from asr_core.cli.program import run_program
from asr_core.serving.options import TracedModelOptions
from asr_core.utils.options import Parser, add_options, params_of


def main(defaults: Optional[Mapping[str, object]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run, as :func:`asr_core.bin.transcribe.main` does."""
    parser = Parser(__doc__)
    add_options(parser, TracedModelOptions, {"decode_chunk_len": argparse.SUPPRESS, **(defaults or {})})
    add_arguments(parser, defaults, without=("model", "max_segment", "use_ema"))
    params = params_of(parser.parse_args(argv))

    def body() -> None:
        from asr_core.serving.transcription import transcribe_files_traced

        if transcribe_files_traced(params, params.sound_files):
            sys.exit(1)

    run_program(body)


if __name__ == "__main__":
    main()

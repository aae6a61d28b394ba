"""Transcribe audio files chunk by chunk with the three files that jit_trace_export wrote."""

import argparse
import dataclasses
from typing import Any, Dict, Mapping, Optional, Sequence

from asr_core.bin import transcribe
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, option, params_of

_PARTS = ("encoder", "decoder", "joiner")


@dataclasses.dataclass
class TracedOptions:
    """Model: its three files."""

    encoder_model_filename: str = option("", "encoder_jit_trace.pt; needed")
    decoder_model_filename: str = option("", "decoder_jit_trace.pt; needed")
    joiner_model_filename: str = option("", "joiner_jit_trace.pt; needed")
    decode_chunk_len: int = option(
        32, "feature frames of a chunk; refused if the model was exported for others, left out: those"
    )


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments and exit status as of :func:`asr_core.bin.transcribe.main`."""
    parser = Parser(__doc__)
    add_options(parser, TracedOptions, {"decode_chunk_len": argparse.SUPPRESS, **(defaults or {})})
    transcribe.add_arguments(parser, defaults, without=("model", "max_segment"))
    params = params_of(parser.parse_args(argv))

    def load(given: Dict[str, Any], device: str) -> Any:
        from asr_core.export.loading import describe_scripted
        from asr_core.export.traced import load_traced

        paths = [params[f"{part}_model_filename"] for part in _PARTS]
        for part, path in zip(_PARTS, paths):
            if not path:
                raise UserError(f"no {part}: give its file with --{part}-model-filename")
        return describe_scripted(load_traced(*paths, device), paths[0], params.tokens, given)

    transcribe.run(params, load)


if __name__ == "__main__":
    main()

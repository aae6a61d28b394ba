"""Export a streaming transducer as three traced files, {encoder,decoder,joiner}_jit_trace.pt, for one --chunk-size."""

import logging
from typing import Any, Mapping, Optional, Sequence

from asr_core.bin import export
from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict


def jit_trace_export(params: AttributeDict, fallback_tokens: str = "") -> None:
    """Export as ``params`` say; arguments as of :func:`asr_core.bin.export.export`.

    Raises:
      UserError: no such checkpoint or tokens, or a model that does not stream or has states besides the encoder's.
    """
    from asr_core.export.pretrained import model_info
    from asr_core.export.traced import export_traced
    from asr_core.utils.log import setup_logger

    setup_logger()
    model, trained, tokenizer = export.load_for_export(params, fallback_tokens)
    info = model_info(model, trained)
    if not info["causal"]:
        raise UserError("the model is not causal, so it cannot stream; train with --causal 1")
    if int(export.fix_chunk(model, params, trained)["chunk_size"]) < 1:
        raise UserError("streaming needs a limited --chunk-size")
    for path in export_traced(model, params.exp_dir, info, tokenizer.pieces):
        logging.info("wrote %s", path)


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.export.parsed`."""
    params, fallback = export.parsed(
        __doc__, export.TokensOptions, {"epoch": 28, "avg": 15, **(defaults or {})}, argv
    )
    run_program(lambda: jit_trace_export(params, fallback))


if __name__ == "__main__":
    main()

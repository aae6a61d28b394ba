"""Export a trained model: pretrained.pt, or with --jit 1 TorchScript. A recipe's export.py calls :func:`main`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from asr_core.bin import decoding as shared
from asr_core.bin.common import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, option, params_of


@dataclass
class ExportOptions:
    """Export: what is written."""

    jit: bool = option(False, "write TorchScript in place of pretrained.pt: for streaming if the model is causal and --chunk-size positive")
    tokens: str = option("", "tokens.txt or bpe.model of the model; left out: what training put into --exp-dir")


def export(params: AttributeDict, fallback_tokens: str = "") -> None:
    """Export as ``params`` say.

    Args:
      params: all options.
      fallback_tokens: where the recipe keeps its tokens, if the experiment's folder has none.

    Raises:
      UserError: no such checkpoint or tokens, or a chunk size that cannot stream.
    """
    from asr_core.decoding.options import chunk_and_left
    from asr_core.export.pretrained import model_info, save_pretrained
    from asr_core.export.torchscript import export_torchscript
    from asr_core.text.tokenizer import write_tokens
    from asr_core.utils.files import write_text_atomic
    from asr_core.utils.log import setup_logger

    setup_logger()
    opts = from_params(ExportOptions, params)
    exp_dir = Path(params.exp_dir)
    model, trained = shared.load_checkpoint_model(params)
    tokenizer = shared.find_tokenizer(opts.tokens, exp_dir, fallback=fallback_tokens)
    shared.check_vocabulary(tokenizer, model.vocab_size)
    if not (exp_dir / "tokens.txt").is_file():
        write_text_atomic(exp_dir / "tokens.txt", write_tokens(tokenizer.pieces))
    if not opts.jit:
        path = exp_dir / "pretrained.pt"
        save_pretrained(model, trained, path)
        logging.info("wrote %s", path)
        return
    info = model_info(model, trained)
    streaming = False
    if info["causal"]:
        chunk, left = chunk_and_left(params, trained, default=None)
        streaming = chunk > 0
        if streaming and left < 1:
            raise UserError("streaming needs a limited --left-context-frames")
        model.set_chunk(chunk, left)
        info.update(chunk_size=str(chunk), left_context_frames=str(left))
    path = export_torchscript(model, exp_dir, info, tokenizer.pieces, streaming)
    logging.info("wrote %s", path)


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run.

    Args:
      defaults: defaults of the recipe's options, by name; that of ``tokens`` holds where --exp-dir has none.
      argv: the command line, by default this process'.
    """
    from asr_core.decoding.options import CheckpointOptions

    all_defaults = {"avg": 9, **(defaults or {})}
    fallback = all_defaults.pop("tokens", "")
    parser = Parser(__doc__.split(". A ")[0] + ".")
    for cls in (CheckpointOptions, ExportOptions):
        add_options(parser, cls, all_defaults)
    shared.add_model_options(parser, all_defaults, argv)
    params = params_of(parser.parse_args(argv))
    run_program(lambda: export(params, fallback))


if __name__ == "__main__":
    main()

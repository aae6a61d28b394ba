"""Export a trained model: pretrained.pt, or with --jit 1 TorchScript. A recipe's export.py calls :func:`main`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from asr_core.cli import decoding_arguments as shared
from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, option, params_of


@dataclass
class TokensOptions:
    """Tokens."""

    tokens: str = option(
        "",
        "tokens.txt or bpe.model of the model; left out: what training put into --exp-dir",
        aliases=("--bpe-model",),
    )


@dataclass
class ExportOptions(TokensOptions):
    """Export: what is written."""

    jit: bool = option(
        False,
        "write TorchScript in place of pretrained.pt: for streaming if the model is causal and --chunk-size positive",
    )


def load_for_export(params: AttributeDict, fallback_tokens: str = "") -> Tuple[Any, AttributeDict, Any]:
    """The model that ``params`` select, the parameters it was trained with, and its tokenizer; tokens.txt is put into --exp-dir.

    Raises:
      UserError: no such checkpoint or tokens.
    """
    from asr_core.decoding.model_loading import (
        check_vocabulary,
        find_tokenizer,
        load_checkpoint_model,
        model_overrides,
    )
    from asr_core.models.checkpoint_options import CheckpointOptions
    from asr_core.text.tokenizer import write_tokens
    from asr_core.utils.files import write_text_atomic

    exp_dir = Path(params.exp_dir)
    model, trained = load_checkpoint_model(from_params(CheckpointOptions, params), model_overrides(params))
    tokenizer = find_tokenizer(params.tokens, exp_dir, fallback=fallback_tokens)
    check_vocabulary(tokenizer, model.vocab_size)
    if not (exp_dir / "tokens.txt").is_file():
        write_text_atomic(exp_dir / "tokens.txt", write_tokens(tokenizer.pieces))
    return model, trained, tokenizer


def fix_chunk(model: Any, params: AttributeDict, trained: AttributeDict) -> Dict[str, str]:
    """Give a causal model the one chunk size and left context that it is exported with; returns both.

    Raises:
      UserError: they are not single values, or cannot stream.
    """
    from asr_core.encoders.chunk_options import chunk_and_left

    chunk, left = chunk_and_left(params, trained, default=None)
    if chunk > 0 and left < 1:
        raise UserError("streaming needs a limited --left-context-frames")
    model.set_chunk(chunk, left)
    return {"chunk_size": str(chunk), "left_context_frames": str(left)}


def export(params: AttributeDict, fallback_tokens: str = "", script_name: str = "") -> None:
    """Export as ``params`` say.

    Args:
      params: all options.
      fallback_tokens: where the recipe keeps its tokens, if the experiment's folder has none.
      script_name: what the TorchScript file is called, if not as usual.

    Raises:
      UserError: no such checkpoint or tokens, or a chunk size that cannot stream.
    """
    from asr_core.export.pretrained import model_info, save_pretrained
    from asr_core.export.torchscript import export_torchscript
    from asr_core.utils.log import setup_logger

    setup_logger()
    model, trained, tokenizer = load_for_export(params, fallback_tokens)
    if params.jit:
        info = model_info(model, trained)
        if info["causal"]:
            info.update(fix_chunk(model, params, trained))
        streaming = info["causal"] and model.encoder.chunk_size[0] > 0
        path = export_torchscript(model, params.exp_dir, info, tokenizer.pieces, streaming, script_name)
    else:
        path = Path(params.exp_dir) / "pretrained.pt"
        save_pretrained(model, trained, path)
    logging.info("wrote %s", path)


def parsed(
    description: str, options: type, defaults: Optional[Mapping[str, Any]], argv: Optional[Sequence[str]]
) -> Tuple[AttributeDict, str]:
    """The command line of a program that exports, and where the recipe keeps its tokens.

    Args:
      description: what ``--help`` says first.
      options: the program's own.
      defaults: defaults of the recipe's options, by name; that of ``tokens`` holds where --exp-dir has none.
      argv: the command line, by default this process'.
    """
    from asr_core.models.checkpoint_options import CheckpointOptions

    all_defaults = {"avg": 9, **(defaults or {})}
    fallback = all_defaults.pop("tokens", "")
    parser = Parser(description)
    for cls in (CheckpointOptions, options):
        add_options(parser, cls, all_defaults)
    shared.add_model_options(parser, all_defaults, argv)
    return params_of(parser.parse_args(argv)), fallback


def main(
    defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None, script_name: str = ""
) -> None:
    """Parse the command line and run; arguments as of :func:`parsed` and :func:`export`."""
    params, fallback = parsed(__doc__.split(". A ")[0] + ".", ExportOptions, defaults, argv)
    run_program(lambda: export(params, fallback, script_name))


if __name__ == "__main__":
    main()

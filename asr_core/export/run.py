"""The export programs: from a run's checkpoints to a file."""

import logging
from pathlib import Path
from typing import Mapping, NamedTuple

from asr_core.decoding.model_loading import (
    load_checkpoint_model,
    model_overrides,
    model_tokenizer,
)
from asr_core.decoding.scorers.neural_lm_loading import load_lm_and_pieces
from asr_core.encoders.chunk_options import Chunk, chunk_and_left
from asr_core.export.language_model import save_lm
from asr_core.export.options import ExportLmOptions, ExportOptions, TokensOptions
from asr_core.export.pretrained import model_info, save_pretrained
from asr_core.export.torchscript import export_torchscript
from asr_core.export.traced import export_traced
from asr_core.lm.options import LmOptions
from asr_core.models.asr_model import AsrModel
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.text import pieces
from asr_core.text.tokenizer import Tokenizer, format_tokens
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic
from asr_core.utils.log import setup_logger
from asr_core.utils.options import from_params


class TrainedModel(NamedTuple):
    """The input of an export.

    Attributes:
      model: averaged model, in evaluation mode.
      params: parameters that it was trained with.
      tokenizer: its tokenizer.
      exp_dir: folder of the run, where exported files go.
    """

    model: AsrModel
    params: Mapping[str, object]
    tokenizer: Tokenizer
    exp_dir: Path


def load_trained(params: Mapping[str, object], fallback_tokens: str) -> TrainedModel:
    """Load the model that the options select, and make sure that its folder has a tokens.txt.

    Args:
      params: all options by name.
      fallback_tokens: the recipe's tokens, if the experiment's folder has none.

    Raises:
      UserError: there is no such checkpoint, or no tokens, or they are another model's.
    """
    checkpoint = from_params(CheckpointOptions, params)
    exp_dir = Path(checkpoint.exp_dir)
    model, trained = load_checkpoint_model(checkpoint, model_overrides(params))
    given = from_params(TokensOptions, params).tokens
    tokenizer = model_tokenizer(exp_dir, model.vocab_size, trained, given, fallback_tokens)
    if not (exp_dir / "tokens.txt").is_file():
        write_text_atomic(exp_dir / "tokens.txt", format_tokens(tokenizer.pieces))
    return TrainedModel(model, {**trained, pieces.KEY: tokenizer.pieces}, tokenizer, exp_dir)


def _fix_chunk(source: TrainedModel, params: Mapping[str, object]) -> Chunk:
    """Set the one chunk size and left context that a causal model is exported with.

    Raises:
      UserError: they are not single values, or cannot stream.
    """
    chunk = chunk_and_left(params, source.params, default=None)
    if chunk.size > 0 and chunk.left_context < 1:
        raise UserError("streaming needs a limited --left-context-frames")
    source.model.set_chunk(chunk.size, chunk.left_context)
    return chunk


def export_model(params: Mapping[str, object], fallback_tokens: str = "", script_name: str = "") -> None:
    """Write ``pretrained.pt`` or a TorchScript file.

    Args:
      params: all options by name, see :class:`~asr_core.export.options.ExportOptions`.
      fallback_tokens: see :func:`load_trained`.
      script_name: name of the TorchScript file, if not the usual one.

    Raises:
      UserError: no such checkpoint or tokens, or a chunk size that cannot stream.
    """
    setup_logger()
    source = load_trained(params, fallback_tokens)
    if from_params(ExportOptions, params).jit:
        info = model_info(source.model, source.params)
        streaming = False
        if info["causal"]:
            chunk = _fix_chunk(source, params)
            info["chunk_size"], info["left_context_frames"] = str(chunk.size), str(chunk.left_context)
            streaming = chunk.size > 0
        path = export_torchscript(
            source.model, source.exp_dir, info, source.tokenizer.pieces, streaming, script_name
        )
    else:
        path = source.exp_dir / "pretrained.pt"
        save_pretrained(source.model, source.params, path)
    logging.info("wrote %s", path)


def export_traced_model(params: Mapping[str, object], fallback_tokens: str = "") -> None:
    """Write a streaming transducer as three traced files.

    Args:
      params: all options by name.
      fallback_tokens: see :func:`load_trained`.

    Raises:
      UserError: no such checkpoint or tokens, or the model does not stream or has states besides
        the encoder's.
    """
    setup_logger()
    source = load_trained(params, fallback_tokens)
    info = model_info(source.model, source.params)
    if not info["causal"]:
        raise UserError("the model is not causal, so it cannot stream; train with --causal 1")
    if _fix_chunk(source, params).size < 1:
        raise UserError("streaming needs a limited --chunk-size")
    for path in export_traced(source.model, source.exp_dir, info, source.tokenizer.pieces):
        logging.info("wrote %s", path)


def average_model(params: Mapping[str, object]) -> None:
    """Write ``epoch-E-avg-A.pt`` or ``iter-I-avg-A.pt``, in the form of a pretrained.pt.

    Args:
      params: all options by name.

    Raises:
      UserError: no such checkpoint, or tokens of another model.
    """
    setup_logger()
    checkpoint = from_params(CheckpointOptions, params)
    model, trained = load_checkpoint_model(checkpoint, model_overrides(params))
    tokens, folder = from_params(TokensOptions, params).tokens, Path(checkpoint.exp_dir)
    if tokens:
        trained[pieces.KEY] = model_tokenizer(folder, model.vocab_size, trained, tokens).pieces
    else:
        trained[pieces.KEY] = pieces.recorded_pieces(trained, folder, model.vocab_size)
    suffix = "-use-ema" if checkpoint.use_ema else ""
    path = Path(checkpoint.exp_dir) / f"{checkpoint.stem}-avg-{checkpoint.avg}{suffix}.pt"
    save_pretrained(model, trained, path)
    logging.info("wrote %s", path)


def export_language_model(opts: ExportLmOptions) -> None:
    """Write the weights of a neural language model, or TorchScript.

    Raises:
      UserError: there are no such checkpoints.
    """
    setup_logger()
    source = LmOptions(lm_exp_dir=opts.exp_dir, lm_epoch=opts.epoch, lm_avg=opts.avg)
    lm, recorded = load_lm_and_pieces(source, opts.lm_type)
    name = "cpu_jit.pt" if opts.jit else "pretrained.pt"
    path = save_lm(lm, Path(opts.exp_dir) / name, opts.jit, recorded)
    size = sum(p.numel() for p in lm.parameters())
    logging.info("%s: %s language model, %d tokens, %d parameters", path, opts.lm_type, lm.vocab_size, size)

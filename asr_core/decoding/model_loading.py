"""The trained model and tokenizer that the options of a program select."""

import dataclasses
import logging
from pathlib import Path
from typing import Dict, Mapping, Tuple

from asr_core.encoders.chunk_options import CHUNK_OPTIONS
from asr_core.models.asr_model import AsrModel
from asr_core.models.checkpoint import load_averaged_model
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.models.options import options_class
from asr_core.text.pieces import check_tokenizer, recorded_pieces
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict
from asr_core.utils.paths import PathLike


def model_overrides(params: Mapping[str, object]) -> Dict[str, object]:
    """Return the model options that the user gave, without the chunk options, which are free."""
    fields = dataclasses.fields(options_class(str(params.get("encoder", "zipformer"))))
    return {f.name: params[f.name] for f in fields if f.name in params and f.name not in CHUNK_OPTIONS}


def load_checkpoint_model(
    checkpoint: CheckpointOptions, overrides: Mapping[str, object]
) -> Tuple[AsrModel, AttributeDict]:
    """Load the (averaged) model of a run in evaluation mode, and its training parameters.

    Args:
      checkpoint: whose weights.
      overrides: model options that the user gave; the checkpoint's win where it has them.

    Raises:
      UserError: there are no such checkpoints, or the options contradict them.
    """
    model, trained = load_averaged_model(
        checkpoint.exp_dir,
        epoch=checkpoint.epoch,
        iter=checkpoint.iter,
        avg=checkpoint.avg,
        use_averaged_model=checkpoint.use_averaged_model,
        overrides=overrides,
        use_ema=checkpoint.use_ema,
    )
    model.eval()
    logging.info("%d parameters", sum(p.numel() for p in model.parameters()))
    return model, AttributeDict({**overrides, **trained, "causal": model.encoder.causal})


def model_tokenizer(
    exp_dir: PathLike, vocab_size: int, trained: Mapping[str, object], given: str = "", fallback: str = ""
) -> Tokenizer:
    """Load the tokenizer of a run's model.

    Args:
      exp_dir: the run's folder, which has a bpe.model or a tokens.txt.
      vocab_size: number of tokens of the model.
      trained: its training parameters.
      given: path of the tokenizer, if the user gave one.
      fallback: its path if the folder has none.

    Raises:
      UserError: no tokenizer was found, or its tokens are not the model's.
    """
    folder = Path(exp_dir)
    beside = [folder / name for name in ("bpe.model", "tokens.txt") if (folder / name).is_file()]
    path = given or (beside[0] if beside else fallback)
    if not path:
        raise UserError(f"no bpe.model or tokens.txt in {folder}: give one with --bpe-model or --tokens")
    tokenizer = Tokenizer.load(path, vocab_size)
    check_tokenizer(tokenizer, vocab_size, recorded_pieces(trained, folder, vocab_size))
    return tokenizer

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
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict


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


def find_tokenizer(given: str, *folders: Path, fallback: str = "") -> Tokenizer:
    """Load the tokenizer of a model.

    Args:
      given: its path, if the user gave one.
      folders: searched for bpe.model and tokens.txt otherwise, in this order.
      fallback: its path if the folders have none.

    Raises:
      UserError: no tokenizer was found.
    """
    if given:
        return Tokenizer.load(given)
    for folder in folders:
        for name in ("bpe.model", "tokens.txt"):
            if (folder / name).is_file():
                return Tokenizer.load(folder / name)
    if fallback:
        return Tokenizer.load(fallback)
    raise UserError(
        f"no bpe.model or tokens.txt in {' or '.join(map(str, folders))}: "
        "give one with --bpe-model or --tokens"
    )


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer that does not match the model.

    Raises:
      UserError: their numbers of tokens differ.
    """
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} tokens, but the model {vocab_size}: "
            "it is another model's tokenizer"
        )

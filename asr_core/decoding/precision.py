"""Precision of encoder, predictor and joiner while decoding."""

import torch
from torch import nn

from asr_core.decoding.options import FLOAT32
from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.models.asr_model import AsrModel
from asr_core.utils.errors import UserError


def set_precision(model: object, dtype: str, device: torch.device) -> None:
    """Convert what computes most to the precision that ``--dtype`` names.

    The CTC head, the attention decoder and an LSTM predictor stay in float32: they are small, and
    an LSTM's errors add up over an utterance.

    Args:
      model: in evaluation mode, changed in place.
      dtype: ``float32``, ``bfloat16`` or ``float16``.
      device: where it will run.

    Raises:
      UserError: the model's file fixes its precision, or the device lacks this one.
    """
    if dtype == FLOAT32:
        return
    if not isinstance(model, AsrModel):
        raise UserError(
            f"--dtype {dtype}: a TorchScript file computes as it was exported, in float32; leave it out, "
            "or give the checkpoint or pretrained.pt"
        )
    if dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("--dtype bfloat16: this GPU has no bfloat16; give --dtype float16")
    for name in ("encoder_embed", "encoder", "joiner", "decoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and not (name == "decoder" and is_recurrent(part)):
            part.to(getattr(torch, dtype))


def input_dtype(model: object) -> torch.dtype:
    """Return the type of the features that a model's encoder takes."""
    for name in ("encoder_embed", "encoder"):  # a front end may have no weights
        part = getattr(model, name, None)
        weight = next(part.parameters(), None) if isinstance(part, nn.Module) else None
        if weight is not None:
            return weight.dtype
    return torch.float32

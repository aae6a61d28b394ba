"""Checkpoints of icefall's older streaming Zipformer under this library's names."""

from typing import Any, Dict, Mapping

from torch import Tensor

_EMBED = "encoder.encoder_embed."  # in these checkpoints the front end is part of the encoder
_MARK = "encoder.downsample_output.query"  # a parameter that no other encoder has


def convert(content: Dict[str, Any]) -> Dict[str, Any]:
    """Return a checkpoint's content as this library would have saved it.

    That is, with the kind of encoder, and with the front end outside the encoder.

    Args:
      content: content of any checkpoint; returned as it is unless it is one of icefall's
        ``pruned_transducer_stateless7_streaming``.
    """
    model = content.get("model")
    if (
        not isinstance(model, dict)
        or not any(_MARK in name for name in model)
        or not any(_EMBED in name for name in model)
    ):
        return content
    renamed = {
        key: _renamed(value)
        for key, value in content.items()
        if key in ("model", "model_avg") and isinstance(value, dict)
    }
    return {"encoder": "zipformer1", **content, **renamed}


def _renamed(state: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Return a state dict whose front end is outside the encoder."""
    return {name.replace(_EMBED, "encoder_embed."): value for name, value in state.items()}

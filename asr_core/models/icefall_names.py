"""Checkpoints of icefall's older streaming Zipformer under this library's names."""

from typing import Any, Dict, Mapping

from torch import Tensor

_EMBED = "encoder.encoder_embed."  # there the front end is a part of the encoder
_MARK = "encoder.downsample_output.query"  # no other encoder has it


def convert(content: Dict[str, Any]) -> Dict[str, Any]:
    """A checkpoint's content as this library would have saved it: its encoder told, the front end beside the encoder.

    Args:
      content: what any checkpoint holds; returned as it is unless it is one of ``pruned_transducer_stateless7_streaming``.
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
    return {name.replace(_EMBED, "encoder_embed."): value for name, value in state.items()}

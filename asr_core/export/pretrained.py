"""``pretrained.pt``: weights for inference with what describes them."""

from typing import Any, Dict, Mapping

import torch

from asr_core.data.features import describe_features
from asr_core.models.options import DEFAULT_ENCODER, options_class
from asr_core.utils.files import PathLike, atomic_path
from asr_core.utils.options import as_recorded, defaults_of


def model_info(model: Any, params: Mapping[str, Any]) -> Dict[str, Any]:
    """What one must know about a model beside its weights.

    Args:
      model: an AsrModel.
      params: the parameters that its checkpoint holds.

    Returns:
      All model options, ``vocab_size``, ``feature_dim``, ``blank_id``, ``sample_rate``, ``feature_type``, ``features`` (see
      :func:`asr_core.data.features.describe_features`), ``subsampling_factor`` and ``geometry`` (see
      :class:`~asr_core.encoders.protocol.FrameGeometry`), as JSON values.
    """
    usual = defaults_of(options_class(str(params.get("encoder", DEFAULT_ENCODER))))
    info = {name: as_recorded(params.get(name, default)) for name, default in usual.items()}
    info["vocab_size"] = int(model.vocab_size)
    info["feature_dim"] = int(params.get("feature_dim", params.get("num_mel_bins", 80)))
    info["blank_id"] = int(params.get("blank_id", 0))
    info["sample_rate"] = int(params.get("sample_rate", 16000))
    info["feature_type"] = str(params.get("feature_type", "fbank"))
    info["features"] = describe_features(info["sample_rate"], info["feature_dim"], info["feature_type"])
    info["subsampling_factor"] = model.geometry.subsampling_factor
    info["geometry"] = list(model.geometry)
    return info


def save_pretrained(model: Any, params: Mapping[str, Any], path: PathLike) -> None:
    """Save ``{"model": state dict, ...}`` with the entries of :func:`model_info`; weights float32, on the CPU."""
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    with atomic_path(path) as tmp:
        torch.save({"model": state, **model_info(model, params)}, tmp)

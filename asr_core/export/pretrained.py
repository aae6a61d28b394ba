"""The file ``pretrained.pt``: weights for inference and a description of their model."""

from typing import List, Mapping, TypedDict, cast

import torch

from asr_core.data.features import describe_features
from asr_core.models.asr_model import AsrModel
from asr_core.models.options import DEFAULT_ENCODER, options_class
from asr_core.text.pieces import recorded_pieces
from asr_core.utils.files import atomic_path
from asr_core.utils.options import as_recorded, defaults_of
from asr_core.utils.paths import PathLike


class ModelInfo(TypedDict, total=False):
    """The description of a model, without its weights, as JSON values.

    It holds all other options of the model, too. Files of other exporters may have none of it.

    Attributes:
      vocab_size: number of tokens, blank included.
      pieces: the tokens by id; a TorchScript file has them as its tokens.txt.
      blank_id: id of the blank.
      context_size: tokens that a stateless prediction network sees.
      causal: whether the encoder is causal.
      chunk_size, left_context_frames: in 50 Hz frames, as text.
      feature_dim: features per frame.
      feature_type: kind of features, see :func:`asr_core.data.features.make_extractor`.
      features: see :func:`asr_core.data.features.describe_features`.
      sample_rate: samples per second.
      subsampling_factor: feature frames per frame of encoder output.
      geometry: see :class:`~asr_core.encoders.protocol.FrameGeometry`.
    """

    vocab_size: int
    pieces: List[str]
    blank_id: int
    context_size: int
    causal: bool
    chunk_size: str
    left_context_frames: str
    feature_dim: int
    feature_type: str
    features: Mapping[str, object]
    sample_rate: int
    subsampling_factor: int
    geometry: List[int]


def model_info(model: AsrModel, params: Mapping[str, object]) -> ModelInfo:
    """Describe a model.

    Args:
      model: model.
      params: parameters that its checkpoint records.
    """
    usual = defaults_of(options_class(str(params.get("encoder", DEFAULT_ENCODER))))
    options = {name: as_recorded(params.get(name, default)) for name, default in usual.items()}
    sample_rate = _integer(params, "sample_rate", 16000)
    feature_dim = _integer(params, "feature_dim", _integer(params, "num_mel_bins", 80))
    feature_type = str(params.get("feature_type", "fbank"))
    derived = ModelInfo(
        vocab_size=int(model.vocab_size),
        feature_dim=feature_dim,
        blank_id=_integer(params, "blank_id", 0),
        sample_rate=sample_rate,
        feature_type=feature_type,
        features=describe_features(sample_rate, feature_dim, feature_type),
        subsampling_factor=model.geometry.subsampling_factor,
        geometry=list(model.geometry),
    )
    recorded = recorded_pieces(params)
    if recorded is not None:
        derived["pieces"] = recorded
    return cast(ModelInfo, {**options, **derived})


def _integer(params: Mapping[str, object], name: str, default: int) -> int:
    return int(str(params.get(name, default)))


def save_pretrained(model: AsrModel, params: Mapping[str, object], path: PathLike) -> None:
    """Save ``{"model": state dict, ...}`` with :func:`model_info` and the weights on the CPU."""
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    with atomic_path(path) as tmp:
        torch.save({"model": state, **model_info(model, params)}, tmp)

"""The Conformer that its options describe."""

from typing import Tuple, Union

from torch import nn

from asr_core.encoders.conformer.encoder import Conformer
from asr_core.encoders.conformer.options import ConformerOptions
from asr_core.nn.activations import ACTIVATIONS
from asr_core.nn.subsampling4 import (
    Conv2dSubsampling4,
    Conv2dSubsamplingNarrow,
    FrameStacking,
    VggStacking,
)

ConformerFrontEnd = Union[Conv2dSubsampling4, Conv2dSubsamplingNarrow, FrameStacking, VggStacking]


def build(opts: ConformerOptions, feature_dim: int) -> Tuple[ConformerFrontEnd, Conformer]:
    """Build front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    encoder_embed = _front_end(opts, feature_dim)
    encoder = Conformer(opts, frame_factor=encoder_embed.subsampling_factor)
    for module in (*encoder_embed.modules(), *encoder.modules()):
        _initialise(module)
    return encoder_embed, encoder


def _front_end(opts: ConformerOptions, feature_dim: int) -> ConformerFrontEnd:
    dim, dropout = opts.encoder_dim, opts.rate(opts.embed_dropout)
    if opts.front_end == "conv":
        return Conv2dSubsampling4(feature_dim, dim, opts.front_end_channels, dropout)
    if opts.front_end == "narrow":
        return Conv2dSubsamplingNarrow(feature_dim, dim, ACTIVATIONS[opts.activation](), dropout)
    if opts.front_end == "stack":
        return FrameStacking(feature_dim, dim, dropout=dropout)
    return VggStacking(feature_dim, dim, dropout=dropout)


def _initialise(module: nn.Module) -> None:
    """Start linear maps without bias, at weights that keep variances (Glorot and Bengio 2010)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

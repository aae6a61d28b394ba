"""Options and construction of the LSTM encoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn


@dataclass
class LstmOptions:
    """LSTM with projection."""

    num_encoder_layers: int = option(12, "Layers of the encoder.")
    encoder_dim: int = option(
        512, "Width of each layer's input and output, to which its cells are projected."
    )
    rnn_hidden_size: int = option(
        1024, "Width of the cells of each layer; equal to --encoder-dim: no projection."
    )
    dim_feedforward: int = option(2048, "Width inside the feed-forward modules.")
    dropout: float = option(0.1, "Dropout of what the parts of each layer add.")
    causal: bool = option(True, "An LSTM sees the past alone: nothing else is possible.")


def build(opts: Any, feature_dim: int) -> "Tuple[nn.Module, nn.Module]":
    """Front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    from asr_core.encoders.lstm.encoder import LstmEncoder
    from asr_core.nn.scaling import SwooshR
    from asr_core.nn.subsampling4 import Conv2dSubsamplingNarrow

    if not opts.causal:
        raise UserError("--causal 0: an LSTM sees the past alone, leave it out")
    try:
        encoder = LstmEncoder(
            num_layers=opts.num_encoder_layers,
            encoder_dim=opts.encoder_dim,
            hidden_dim=opts.rnn_hidden_size,
            feedforward_dim=opts.dim_feedforward,
            dropout=opts.dropout,
            chunk_size=int_entries(opts, "chunk_size"),
            left_context_frames=int_entries(opts, "left_context_frames"),
        )
        for chunk_size in encoder.chunk_size:
            encoder.check_chunk(chunk_size, -1)
        return Conv2dSubsamplingNarrow(feature_dim, opts.encoder_dim, SwooshR(), opts.dropout), encoder
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e

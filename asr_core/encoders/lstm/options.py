"""Options of the LSTM encoder."""

from dataclasses import dataclass

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option


@dataclass(frozen=True)
class LstmOptions(ChunkOptions):
    """LSTM with projection."""

    num_encoder_layers: int = option(12, "Layers of the encoder.", at_least=1, at_most=MAX_LAYERS)
    encoder_dim: int = option(
        512,
        "Width of each layer's input and output, to which its cells are projected.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    rnn_hidden_size: int = option(
        1024,
        "Width of the cells of each layer; equal to --encoder-dim: no projection.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    dim_feedforward: int = option(
        2048, "Width inside the feed-forward modules.", at_least=1, at_most=MAX_WIDTH
    )
    dropout: float = option(0.1, "Dropout of what the parts of each layer add.", at_least=0, below=1)
    causal: bool = option(True, "An LSTM sees only the past: nothing else is possible.")

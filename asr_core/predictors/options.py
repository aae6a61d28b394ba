"""Options of prediction networks."""

from dataclasses import dataclass

from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH, OnlyWith
from asr_core.utils.options import option


@dataclass(frozen=True)
class PredictorOptions:
    """Prediction network."""

    predictor: str = option(
        "stateless",
        "Kind of prediction network: stateless sees --context-size tokens, lstm all tokens so far.",
        choices=["stateless", "lstm"],
    )
    decoder_dim: int = option(512, "Width of the prediction network.", at_least=1, at_most=MAX_WIDTH)
    context_size: int = option(
        2,
        "Tokens that a stateless prediction network sees; 2 makes a trigram-like model of the history.",
        at_least=1,
        at_most=MAX_LAYERS,
        only_with=OnlyWith("predictor", ("stateless",)),
    )
    predictor_layers: int = option(
        1,
        "Layers of an LSTM predictor.",
        at_least=1,
        at_most=MAX_LAYERS,
        only_with=OnlyWith("predictor", ("lstm",)),
    )
    predictor_hidden_dim: int = option(
        0,
        "Width of its cells, which each layer projects to --decoder-dim; 0: --decoder-dim, without "
        "projection.",
        at_least=0,
        at_most=MAX_WIDTH,
        only_with=OnlyWith("predictor", ("lstm",)),
    )
    predictor_embedding_dim: int = option(
        0,
        "Width of its embedding; 0: --decoder-dim.",
        at_least=0,
        at_most=MAX_WIDTH,
        only_with=OnlyWith("predictor", ("lstm",)),
    )
    predictor_layer_norm: bool = option(
        False, "Normalise the output of each of its layers.", only_with=OnlyWith("predictor", ("lstm",))
    )
    predictor_cell_clip: float = option(
        0.0,
        "Keep its cells between minus this and this, e.g. 10; 0: no limit, and faster.",
        at_least=0,
        only_with=OnlyWith("predictor", ("lstm",)),
    )
    predictor_noise: float = option(
        0.075,
        "Variational noise: standard deviation of what is added to an LSTM predictor's parameters "
        "in each batch of training.",
        at_least=0,
    )
    joiner_noise: float = option(
        0.0, "The same for the joiner's parameters, whatever the predictor.", at_least=0
    )
    predictor_noise_start: int = option(
        20000,
        "Batch from which on there is noise; counted as for dropout schedules, see --ref-duration.",
        at_least=0,
    )

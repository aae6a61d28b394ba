"""Options and construction of prediction networks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr_core.utils.errors import UserError
from asr_core.utils.options import option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn


@dataclass
class PredictorOptions:
    """Prediction network."""

    predictor: str = option(
        "stateless",
        "Kind of prediction network: stateless sees --context-size tokens, lstm all tokens so far.",
        choices=["stateless", "lstm"],
    )
    decoder_dim: int = option(512, "Width of the prediction network.")
    context_size: int = option(
        2, "Tokens that a stateless prediction network sees; 2 makes a trigram-like model of the history."
    )
    predictor_layers: int = option(1, "Layers of an LSTM predictor.")
    predictor_hidden_dim: int = option(
        0,
        "Width of its cells, which each layer projects to --decoder-dim; 0: --decoder-dim, without projection.",
    )
    predictor_embedding_dim: int = option(0, "Width of its embedding; 0: --decoder-dim.")
    predictor_layer_norm: bool = option(False, "Normalise the output of each of its layers.")
    predictor_cell_clip: float = option(
        0.0, "Keep its cells between minus this and this, e.g. 10; 0: no limit, and faster."
    )
    predictor_noise: float = option(
        0.075,
        "Variational noise: standard deviation of what is added to an LSTM predictor's parameters in each batch of training.",
    )
    joiner_noise: float = option(0.0, "The same for the joiner's parameters, whatever the predictor.")
    predictor_noise_start: int = option(
        20000, "Batch from which on there is noise; counted as for dropout schedules, see --ref-duration."
    )


def build_predictor(opts: PredictorOptions, vocab_size: int, blank_id: int) -> "nn.Module":
    """The prediction network.

    Raises:
      UserError: options that make no sense.
    """
    from asr_core.predictors import LstmPredictor, StatelessPredictor

    if opts.predictor not in ("stateless", "lstm"):
        raise UserError(f"unknown --predictor {opts.predictor!r}; known: stateless, lstm")
    if min(opts.predictor_noise, opts.joiner_noise, opts.predictor_noise_start) < 0:
        raise UserError("--predictor-noise, --joiner-noise and --predictor-noise-start must be at least 0")
    if opts.predictor == "stateless":
        if opts.decoder_dim % 4 != 0 or opts.context_size < 1:
            raise UserError("--decoder-dim must be a multiple of 4 and --context-size at least 1")
        return StatelessPredictor(vocab_size, opts.decoder_dim, blank_id, opts.context_size)
    if (
        min(opts.decoder_dim, opts.predictor_layers) < 1
        or min(opts.predictor_hidden_dim, opts.predictor_embedding_dim) < 0
    ):
        raise UserError(
            "--decoder-dim and --predictor-layers must be at least 1, the other widths of the predictor at least 0"
        )
    if opts.predictor_cell_clip < 0:
        raise UserError("--predictor-cell-clip must be at least 0")
    return LstmPredictor(
        vocab_size,
        opts.decoder_dim,
        blank_id,
        embedding_dim=opts.predictor_embedding_dim,
        num_layers=opts.predictor_layers,
        hidden_dim=opts.predictor_hidden_dim,
        layer_norm=opts.predictor_layer_norm,
        cell_clip=opts.predictor_cell_clip,
    )

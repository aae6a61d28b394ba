"""The prediction network that its options describe."""

from typing import Union

from asr_core.predictors.lstm import LstmPredictor
from asr_core.predictors.options import PredictorOptions
from asr_core.predictors.stateless import StatelessPredictor
from asr_core.utils.errors import UserError


def build_predictor(
    opts: PredictorOptions, vocab_size: int, blank_id: int
) -> Union[StatelessPredictor, LstmPredictor]:
    """Build the prediction network of a transducer.

    Args:
      opts: its options.
      vocab_size: number of tokens, blank included.
      blank_id: id of the blank.

    Raises:
      UserError: options that contradict each other.
    """
    if opts.predictor == "stateless":
        if opts.decoder_dim % 4 != 0:
            raise UserError(f"--decoder-dim must be a multiple of 4, got {opts.decoder_dim}")
        return StatelessPredictor(vocab_size, opts.decoder_dim, blank_id, opts.context_size)
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

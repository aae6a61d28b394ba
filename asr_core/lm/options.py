"""Options of neural language models in decoding; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass
from typing import Optional

from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option


@dataclass
class LmOptions:
    """Neural language model: its files and sizes.

    A checkpoint records the sizes of its model; a given size that contradicts them is refused.
    """

    lm_vocab_size: int = option(500, "number of tokens of the language model", at_least=1, at_most=1_000_000)
    lm_epoch: int = option(7, "take <lm-exp-dir>/epoch-<N>.pt", at_least=0)
    lm_avg: int = option(1, "average the weights of this many epochs, up to --lm-epoch", at_least=1)
    lm_exp_dir: Optional[str] = option(
        None, "folder of the language model's checkpoints", path=PathKind.PLACE
    )
    rnn_lm_embedding_dim: int = option(
        2048, "RNN: width of the token embeddings", at_least=1, at_most=MAX_WIDTH
    )
    rnn_lm_hidden_dim: int = option(2048, "RNN: width of the LSTM layers", at_least=1, at_most=MAX_WIDTH)
    rnn_lm_num_layers: int = option(3, "RNN: number of LSTM layers", at_least=1, at_most=MAX_LAYERS)
    rnn_lm_tie_weights: bool = option(True, "RNN: one matrix for the embeddings and the output layer")
    transformer_lm_exp_dir: Optional[str] = option(
        None, "folder of a transformer's checkpoints, where --lm-exp-dir is not given", path=PathKind.PLACE
    )
    transformer_lm_dim_feedforward: int = option(
        2048, "transformer: width inside the feed-forward modules", at_least=1, at_most=MAX_WIDTH
    )
    transformer_lm_encoder_dim: int = option(
        768, "transformer: width of the layers", at_least=1, at_most=MAX_WIDTH
    )
    transformer_lm_embedding_dim: int = option(
        768, "transformer: width of the token embeddings", at_least=1, at_most=MAX_WIDTH
    )
    transformer_lm_nhead: int = option(8, "transformer: attention heads", at_least=1, at_most=MAX_LAYERS)
    transformer_lm_num_layers: int = option(
        16, "transformer: number of layers", at_least=1, at_most=MAX_LAYERS
    )
    transformer_lm_tie_weights: bool = option(
        True, "transformer: one matrix for the embeddings and the output layer"
    )


@dataclass
class LmTrainOptions:
    """Training of a neural language model: data, batches, learning rate."""

    lm_data: str = option(
        "data/lm_training_bpe_500/sorted_lm_data.pt",
        "training data, as prepare_lm_data makes it",
        path=PathKind.FILE,
    )
    lm_data_valid: str = option(
        "data/lm_training_bpe_500/sorted_lm_data-valid.pt", "validation data", path=PathKind.FILE
    )
    vocab_size: int = option(500, "number of tokens", at_least=2, at_most=1_000_000)
    batch_size: int = option(400, "sentences in a batch", at_least=1, at_most=1_000_000)
    max_sent_len: int = option(200, "leave out sentences of more tokens", at_least=1)
    lr: float = option(0.001, "learning rate of Adam", above=0)
    warmup_batches: float = option(0.0, "batches over which the learning rate rises to --lr", at_least=0)
    clip_norm: float = option(5.0, "scale gradients down to this norm; 0: never", at_least=0)


@dataclass
class RnnOptions:
    """Sizes of the LSTM language model."""

    embedding_dim: int = option(2048, "width of the token embeddings", at_least=1, at_most=MAX_WIDTH)
    hidden_dim: int = option(2048, "width of the LSTM layers", at_least=1, at_most=MAX_WIDTH)
    num_layers: int = option(3, "number of LSTM layers", at_least=1, at_most=MAX_LAYERS)
    tie_weights: bool = option(True, "one matrix for the embeddings and the output layer")


@dataclass
class TransformerOptions:
    """Sizes of the transformer language model."""

    encoder_dim: int = option(768, "width of the layers", at_least=1, at_most=MAX_WIDTH)
    embedding_dim: int = option(768, "width of the token embeddings", at_least=1, at_most=MAX_WIDTH)
    dim_feedforward: int = option(
        2048, "width inside the feed-forward modules", at_least=1, at_most=MAX_WIDTH
    )
    nhead: int = option(8, "attention heads", at_least=1, at_most=MAX_LAYERS)
    num_layers: int = option(12, "number of layers", at_least=1, at_most=MAX_LAYERS)
    tie_weights: bool = option(True, "one matrix for the embeddings and the output layer")
    dropout: float = option(0.1, "share of the activations set to zero in training", at_least=0, below=1)

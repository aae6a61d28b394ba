"""The interface of prediction networks to the rest of the library."""

from typing import Protocol

from torch import Tensor


class Predictor(Protocol):
    """A prediction network of a transducer.

    Attributes:
      blank_id: id of the blank, which also stands at the start of a sequence.
      vocab_size: number of tokens, blank included.
    """

    blank_id: int
    vocab_size: int

    def __call__(self, y: Tensor) -> Tensor:
        """Predict after each of the tokens (N, U): (N, U, decoder_dim)."""

"""The interface between fast beam search and a predictor whose contexts are named by integers."""

from typing import List, NamedTuple, Optional, Protocol, Sequence

import torch
from torch import Tensor

from asr_core.decoding.states import States


class ContextCache(NamedTuple):
    """Contexts of a stream, with the predictor's states in each.

    Attributes:
      keys: (M,) int64, ascending.
      states: states of the predictor, (M, ...).
    """

    keys: Tensor
    states: States


class Contexts(Protocol):
    """A predictor whose contexts have codes of 64 bits.

    The code of a context with one more token is ``(code mod keep) * base + token + 1``.

    Attributes:
      blank_id, vocab_size, device: the model's.
      base, keep: parameters of the codes.
    """

    blank_id: int
    vocab_size: int
    device: torch.device
    base: int
    keep: int

    def start(self, num: int) -> Tensor:
        """Return the codes (num,) of ``num`` new utterances, and keep nothing of earlier
        ones.
        """
        ...

    def __call__(self, code: Tensor) -> Tensor:
        """Return the projected predictor outputs (M, J) of contexts ``code`` (M,)."""
        ...

    def remember(self, code: Tensor, valid: Tensor) -> List[Optional[ContextCache]]:
        """Return the cache that each of N streams must keep until its next frames.

        Args:
          code: (N, S), the contexts after the last frame.
          valid: (N, S), true where there is one.

        Returns:
          N caches; None if codes need no cache.
        """
        ...

    def recall(self, caches: Sequence[Optional[ContextCache]]) -> None:
        """Restore the contexts of streams from these caches."""
        ...

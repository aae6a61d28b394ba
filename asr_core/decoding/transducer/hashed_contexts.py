"""Predictors whose contexts cannot be numbered, for searches that name a context by one integer."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_core.decoding.transducer.predictor import States, concatenate, histories, select

_PRIME = (1 << 40) - 87
_BASE = 3_000_017  # above any vocabulary; times the prime it stays below 2^62


class ContextCache(NamedTuple):
    """Contexts and what the predictor remembers of each.

    Attributes:
      keys: (M,) int64, ascending.
      states: of the predictor, M along the first axes.
    """

    keys: Tensor
    states: States


class HashedContexts:
    """Contexts of an LSTM predictor, or of one that sees more tokens than fit into 64 bits, named by a hash of all their tokens.

    It stands for a :class:`~asr_core.decoding.transducer.context_table.ContextTable`: with ``keep`` a prime of 40 bits, the code
    ``(code mod keep) * base + token + 1`` is a polynomial hash of the tokens that still tells the last one, and, modulo ``keep``, names
    the context; so a new context is made from the one before it, which the search evaluated a frame earlier. Two different contexts
    of an utterance share a name with a probability of about 10^-12.

    Args:
      model: has ``decoder`` and ``joiner.decoder_proj``; TorchScript will do.
      evict: whether each call evict what it was not asked for.
    """

    def __init__(self, model: Any, evict: bool = True) -> None:
        self.evict = evict
        self._histories = histories(model)
        self.blank_id, self.vocab_size, self.device = (
            self._histories.blank_id,
            self._histories.vocab_size,
            self._histories.device,
        )
        self.base, self.keep = _BASE, _PRIME
        self.memory = self.new_memory()

    def new_memory(self) -> ContextCache:
        """The context of utterances that have not begun, and nothing else."""
        return ContextCache(torch.zeros(1, dtype=torch.int64, device=self.device), self._histories.start(1))

    def start(self, *shape: int) -> Tensor:
        """Contexts of utterances that have not begun."""
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def __call__(self, code: Tensor) -> Tensor:
        """Projected predictor outputs (M, joiner_dim) of contexts ``code`` (M,), each known or one token longer than a known one."""
        keys, inverse = code.remainder(self.keep).unique(return_inverse=True)
        one = torch.empty_like(keys).scatter_(0, inverse, code)  # of equal contexts any
        place = torch.searchsorted(self.memory.keys, keys).clamp(max=len(self.memory.keys) - 1)
        known = self.memory.keys[place] == keys
        before = torch.searchsorted(self.memory.keys, one[~known] // self.base)
        token = one[~known].remainder(self.base) - 1
        grown = self._histories.append(
            select(self.memory.states, before), token, torch.ones_like(token, dtype=torch.bool)
        )
        old = place[known] if self.evict else torch.arange(len(self.memory.keys), device=self.device)
        names, order = torch.cat([self.memory.keys[old], keys[~known]]).sort()
        self.memory = ContextCache(
            names, select(concatenate([select(self.memory.states, old), grown]), order)
        )
        return self._histories.output(select(self.memory.states, torch.searchsorted(names, keys)))[inverse]

    def recall(self, memories: "list[ContextCache]") -> None:
        """Remember what several streams remember."""
        keys = torch.cat([m.keys for m in memories])
        found, inverse = keys.unique(return_inverse=True)
        first = torch.empty_like(found).scatter_(0, inverse, torch.arange(len(keys), device=keys.device))
        self.memory = ContextCache(found, select(concatenate([m.states for m in memories]), first))

    def of(self, code: Tensor) -> ContextCache:
        """What is remembered of contexts ``code`` (M,), all of which were asked for."""
        keys = code.remainder(self.keep).unique()
        return ContextCache(keys, select(self.memory.states, torch.searchsorted(self.memory.keys, keys)))

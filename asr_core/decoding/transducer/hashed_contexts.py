"""Predictors whose contexts cannot be numbered, for searches that name a context by one integer."""

from typing import List, Optional, Sequence

import torch
from torch import Tensor

from asr_core.decoding.protocol import Transducer
from asr_core.decoding.states import concatenate, select
from asr_core.decoding.transducer.contexts import ContextCache
from asr_core.decoding.transducer.predictor import predictor_states

_PRIME = (1 << 40) - 87  # the largest prime of 40 bits
_BASE = 3_000_017  # above any vocabulary; times the prime it stays below 2^62


class HashedContexts:
    """Contexts named by a hash of all their tokens, see
    :class:`~asr_core.decoding.transducer.contexts.Contexts`.

    For LSTM predictors, and for those that see more tokens than fit into 64 bits. With ``keep`` a
    prime of 40 bits, the code ``(code mod keep) * base + token + 1`` is a polynomial hash of the
    tokens that still holds the last one and, modulo ``keep``, names the context; so a new context
    is made from the one before it, which the search evaluated a frame earlier. Two different
    contexts of an utterance share a name with a probability of about 10^-12.

    Args:
      model: eager or TorchScript.
      evict: whether each call forgets the contexts that it was not asked for.
    """

    def __init__(self, model: Transducer, evict: bool = True) -> None:
        self._evict = evict
        self._predictor = predictor_states(model)
        self.blank_id = self._predictor.blank_id
        self.vocab_size = self._predictor.vocab_size
        self.device = self._predictor.device
        self.base, self.keep = _BASE, _PRIME
        self._cache = self._new_cache()

    def _new_cache(self) -> ContextCache:
        """Return a cache that holds only the initial context of utterances."""
        return ContextCache(torch.zeros(1, dtype=torch.int64, device=self.device), self._predictor.start(1))

    def start(self, num: int) -> Tensor:
        """Return the initial contexts (num,) of new utterances, and forget all others."""
        self._cache = self._new_cache()
        return torch.zeros(num, dtype=torch.int64, device=self.device)

    def __call__(self, code: Tensor) -> Tensor:
        """Return projected predictor outputs (M, J) of contexts ``code`` (M,).

        Each must be known, or one token longer than a known one.
        """
        cache = self._cache
        keys, inverse = code.remainder(self.keep).unique(return_inverse=True)  # (K,), (M,)
        one = torch.empty_like(keys).scatter_(0, inverse, code)  # (K,), any of the equal contexts
        place = torch.searchsorted(cache.keys, keys).clamp(max=len(cache.keys) - 1)
        known = cache.keys[place] == keys
        before = torch.searchsorted(cache.keys, one[~known] // self.base)
        token = one[~known].remainder(self.base) - 1
        grows = torch.ones_like(token, dtype=torch.bool)
        grown = self._predictor.append(select(cache.states, before), token, grows)
        old = place[known] if self._evict else torch.arange(len(cache.keys), device=self.device)
        names, order = torch.cat([cache.keys[old], keys[~known]]).sort()
        states = select(concatenate([select(cache.states, old), grown]), order)
        self._cache = ContextCache(names, states)
        return self._predictor.output(select(states, torch.searchsorted(names, keys)))[inverse]

    def remember(self, code: Tensor, valid: Tensor) -> List[Optional[ContextCache]]:
        """Return the predictor's states in the contexts ``code`` (N, S) of N streams where
        ``valid`` (N, S).
        """
        self(code[valid])
        return [self._of(row[here]) for row, here in zip(code, valid)]

    def recall(self, caches: Sequence[Optional[ContextCache]]) -> None:
        """Restore the contexts of several streams."""
        known = [cache for cache in caches if cache is not None]
        keys = torch.cat([cache.keys for cache in known])
        found, inverse = keys.unique(return_inverse=True)
        first = torch.empty_like(found).scatter_(0, inverse, torch.arange(len(keys), device=keys.device))
        self._cache = ContextCache(found, select(concatenate([cache.states for cache in known]), first))

    def _of(self, code: Tensor) -> ContextCache:
        """Return the part of the cache for contexts ``code`` (M,), which it knows."""
        keys = code.remainder(self.keep).unique()
        place = torch.searchsorted(self._cache.keys, keys)
        return ContextCache(keys, select(self._cache.states, place))

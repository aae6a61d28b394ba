"""Back-off automata on tensors: n-grams, and phrases, looked up for many hypotheses at a time."""

import functools
from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.ops.gpu import dispatch

kernels = dispatch.deferred("backoff")


class BackOffArcs(NamedTuple):
    """The arrays of an automaton with S states over W words and V tokens.

    Where a state has no arc of a word, the next shorter one is asked, whose number is in ``back``.
    The root, which is asked last, has an answer for every token and is its own ``back``.

    Attributes:
      begin: (S + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``; none of the
        root.
      word, dest: (A,) int32; the arcs of a state ascend by word.
      weight: (A,) float32.
      back: (S,) int64.
      back_weight: (S,) float32, added on the way; 0 at the root.
      name: (V,) int64, the word of each token; W where no arc can have it.
      root_weight: (V,) float32.
      root_dest: (V,) int64.
      end: (S,) float32, score of ending.
    """

    begin: Tensor
    word: Tensor
    dest: Tensor
    weight: Tensor
    back: Tensor
    back_weight: Tensor
    name: Tensor
    root_weight: Tensor
    root_dest: Tensor
    end: Tensor


class BackOff:
    """A back-off automaton.

    Args:
      arcs: its arrays.
      first: the state before the first token.
      root: the state that is asked last.
      num_words: W.
      depth: states asked before the root, at most.

    Attributes:
      arcs, first, root, depth: as given.
      halvings: steps of a binary search among the arcs of any state.
    """

    def __init__(self, arcs: BackOffArcs, *, first: int, root: int, num_words: int, depth: int) -> None:
        self.arcs, self.first, self.root, self.depth = arcs, first, root, depth
        self._base = num_words + 1
        self.halvings = int(arcs.begin.diff().max()).bit_length() if len(arcs.word) else 0

    @property
    def end(self) -> Tensor:
        """Scores (S,) of ending."""
        return self.arcs.end

    def scaled(self, scale: float) -> "BackOff":
        """Return the automaton with all scores multiplied by ``scale``."""
        a = self.arcs
        arcs = a._replace(
            weight=a.weight * scale,
            back_weight=a.back_weight * scale,
            root_weight=a.root_weight * scale,
            end=a.end * scale,
        )
        return BackOff(arcs, first=self.first, root=self.root, num_words=self._base - 1, depth=self.depth)

    def look_up(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the score of each token, float32, and the state that follows, int64.

        Nothing waits for the device. On a GPU it is one launch.

        Args:
          state, token: (N, B) or any other shape, int64.
        """
        if dispatch.usable(self.arcs.weight):
            return kernels.look_up(self, state, token)
        return self.look_up_plain(state, token)

    def look_up_plain(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute :meth:`look_up` in torch."""
        a = self.arcs
        score, after = torch.zeros_like(token, dtype=torch.float32), a.root_dest[token]
        found = torch.zeros_like(token, dtype=torch.bool)
        if len(a.word):
            word = a.name[token]
            for _ in range(self.depth):
                key = state * self._base + word
                at = torch.searchsorted(self._keys, key.contiguous()).clamp_(max=len(a.word) - 1)
                here = self._keys[at] == key
                score = score + torch.where(here, a.weight[at], a.back_weight[state])
                after = torch.where(here, a.dest[at].long(), after)
                found = found | here
                state = a.back[state].masked_fill(here, self.root)
        else:
            for _ in range(self.depth):
                score, state = score + a.back_weight[state], a.back[state]
        return score + a.root_weight[token].masked_fill(found, 0.0), after

    @functools.cached_property
    def _keys(self) -> Tensor:
        """The state and word of each arc as one number (A,), ascending."""
        a = self.arcs
        source = torch.repeat_interleave(
            torch.arange(len(a.back), device=a.begin.device), a.begin.diff(), output_size=len(a.word)
        )
        return source * self._base + a.word

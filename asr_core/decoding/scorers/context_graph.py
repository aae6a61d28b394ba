"""Contextual biasing: phrases as an automaton over tokens.

Aho and Corasick 1975, "Efficient string matching: an aid to bibliographic search",
https://doi.org/10.1145/360825.360855.
"""

import math
from typing import Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.options import LINEAR, LOG

GREEDY_SHARE = 0.5  # of a bonus that is never taken back


def bonus_of_length(length: int, score: float, scaling: str) -> float:
    """Return the bonus of a phrase's first ``length`` tokens, in nats.

    Linear: ``score`` for each token, as in icefall. Log: ``score * ln(1 + length)``, so that a
    long phrase does not earn enough to appear where it was not said.
    """
    return score * (math.log1p(length) if scaling == LOG else length)


class PhraseArcs(NamedTuple):
    """The automaton with S states as back-off automaton, whose scores are bonuses.

    Attributes:
      source, token, dest, bonus: of the arcs, (A,), in the order of source and token.
      step: (A,), the bonus if no phrase were completed.
      fail: (S,) where each state looks for tokens that it has no arc for.
      loss: (S,) the bonus of going there; 0 at the start.
      ending: (S,) the bonus of an utterance's end.
    """

    source: Tensor
    token: Tensor
    dest: Tensor
    bonus: Tensor
    step: Tensor
    fail: Tensor
    loss: Tensor
    ending: Tensor


class ContextGraph:
    """A bonus for each token of a phrase as it is emitted, taken back where the phrase is not
    completed.

    A state is the longest beginning of a phrase that ends at the last token. A completed phrase
    keeps its bonus and leads back to the start, so matches never overlap: the phrase that is
    completed first wins.

    Args:
      phrases: token ids of each phrase; empty ones are left out.
      score: bonus for each token, or its factor; see :func:`bonus_of_length`.
      device: device of the tables.
      scaling: "linear" or "log".

    Attributes:
      num_states: states, the start included.
    """

    def __init__(
        self,
        phrases: Sequence[Sequence[int]],
        score: float,
        device: torch.device = torch.device("cpu"),
        scaling: str = LINEAR,
    ) -> None:
        children: List[Dict[int, int]] = [{}]
        depth, ends = [0], [False]
        for phrase in phrases:
            node = 0
            for token in phrase:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    depth.append(depth[node] + 1)
                    ends.append(False)
                node = children[node][token]
            ends[node] = ends[node] or node != 0
        fail, kept = _links(children, ends, depth)
        self.num_states = len(children)
        bonus = [bonus_of_length(length, score, scaling) for length in range(max(depth) + 1)]
        self._base = 1 + max((token for c in children for token in c), default=0)
        arcs = sorted(
            (node * self._base + token, child)
            for node, c in enumerate(children)
            for token, child in c.items()
        )
        self._keys = torch.tensor([key for key, _ in arcs] or [-1], dtype=torch.int64, device=device)
        self._children = torch.tensor([child for _, child in arcs] or [0], dtype=torch.int64, device=device)
        self._fail = torch.tensor(fail, dtype=torch.int64, device=device)
        self._value = torch.tensor([bonus[d] for d in depth], dtype=torch.float32, device=device)
        self._kept = torch.tensor([bonus[k] for k in kept], dtype=torch.float32, device=device)
        steps = [bonus[d] - bonus[d - 1] if d else 0.0 for d in depth]
        self._step = torch.tensor(steps, dtype=torch.float32, device=device)
        self._ends = torch.tensor([k > 0 for k in kept], dtype=torch.bool, device=device)

    def advance(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the bonus and the next state after ``token`` (N, B) in ``state`` (N, B), or any
        other shape.
        """
        child, found = self._child(state, token)
        node = state
        while not bool((found | (node == 0)).all()):
            node = torch.where(found, node, self._fail[node])
            again, more = self._child(node, token)
            child, found = torch.where(found, child, again), found | more
        to = torch.where(found, child, 0)
        completes = self._ends[to]
        bonus = torch.where(completes, self._kept[to], self._value[to]) - self._value[state]
        return bonus, to.masked_fill(completes, 0)

    def arcs(self) -> PhraseArcs:
        """Return the automaton; what :meth:`advance` returns are sums along its paths."""
        source, token = self._keys.div(self._base, rounding_mode="floor"), self._keys.remainder(self._base)
        there = self._keys >= 0  # without phrases one key stands in
        source, token, to = source[there], token[there], self._children[there]
        completes = self._ends[to]
        bonus = torch.where(completes, self._kept[to], self._value[to]) - self._value[source]
        loss = self._value[self._fail] - self._value
        return PhraseArcs(
            source=source,
            token=token,
            dest=to.masked_fill(completes, 0),
            bonus=bonus,
            step=self._step[to],
            fail=self._fail,
            loss=loss,
            ending=-self._value,
        )

    def finish(self, state: Tensor) -> Tensor:
        """Return minus the bonus of the phrases not completed in ``state`` (N, B), at an
        utterance's end.
        """
        return -self._value[state]

    def continuations(self, state: int) -> Tuple[Tensor, Tensor]:
        """Return the tokens (M,) that continue a phrase from ``state``, or begin one, and the
        bonus (M,) of each; of equal tokens the last continues the longest beginning.
        """
        tokens: List[Tensor] = []
        steps: List[Tensor] = []
        while True:
            low, high = torch.searchsorted(
                self._keys, self._keys.new_tensor([state * self._base, (state + 1) * self._base])
            ).tolist()
            tokens.insert(0, self._keys[low:high] - state * self._base)
            steps.insert(0, self._step[self._children[low:high]])
            if state == 0:
                return torch.cat(tokens), torch.cat(steps)
            state = int(self._fail[state])

    def _child(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the state after ``token`` (N, B) in the phrases, and whether there is one."""
        key = state * self._base + token
        at = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
        return self._children[at], (self._keys[at] == key) & (token < self._base)


class PhraseBoosts:
    """Contextual biasing of greedy search, which cannot take anything back.

    Each token that begins or continues a phrase gets half of what the phrase earns by it: more
    would write beginnings of phrases that were not said.

    Args:
      graph: the phrases.
      vocab_size: V, number of tokens.
      device: device of the search.
    """

    def __init__(self, graph: ContextGraph, vocab_size: int, device: torch.device) -> None:
        self._graph = graph
        self._rows = torch.zeros(0, vocab_size, device=device)  # (M, V), of the M states met so far
        self._place = torch.full((graph.num_states,), -1, dtype=torch.int64, device=device)

    def start(self, num: int) -> Tensor:
        """Return the states (N,) of ``num`` new streams."""
        return self._place.new_zeros(num)

    def __call__(self, state: Tensor) -> Tensor:
        """Return the bonus (N, V) of each token in ``state`` (N,)."""
        for new in state[self._place[state] < 0].unique().tolist():
            row = self._rows.new_zeros(1, self._rows.size(1))
            for token, bonus in zip(*map(Tensor.tolist, self._graph.continuations(new))):
                row[0, token] = GREEDY_SHARE * bonus
            self._place[new] = len(self._rows)
            self._rows = torch.cat([self._rows, row])
        return self._rows[self._place[state]]

    def advance(self, state: Tensor, token: Tensor, emits: Tensor) -> Tensor:
        """Return the states (N,) after ``token`` (N,), where it is emitted."""
        return torch.where(emits, self._graph.advance(state, token)[1], state)


def _links(children: List[Dict[int, int]], ends: List[bool], depth: List[int]) -> Tuple[List[int], List[int]]:
    """Return for each state the state of its longest proper suffix, and the length of the phrase
    that it ends with.

    The length is that of the longest such phrase; 0 without one.
    """
    fail, kept = [0] * len(children), [d if e else 0 for d, e in zip(depth, ends)]
    queue = list(children[0].values())
    for node in queue:
        for token, child in children[node].items():
            suffix = fail[node]
            while suffix and token not in children[suffix]:
                suffix = fail[suffix]
            fail[child] = children[suffix].get(token, 0)
            kept[child] = kept[child] or kept[fail[child]]
            queue.append(child)
    return fail, kept

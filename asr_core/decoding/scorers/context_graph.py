"""Phrases to favour, as an automaton over tokens (Aho and Corasick 1975, "Efficient string matching: an aid to bibliographic search")."""

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor


class ContextGraph:
    """Gives a bonus for each token of a phrase as it is emitted, and takes it back where the phrase is not completed.

    A state is the longest beginning of a phrase that ends at the last token. A completed phrase keeps its bonus and leads back to the
    start, so matches never overlap: the phrase that is completed first wins.

    Args:
      phrases: token ids of each phrase; empty ones are left out.
      score: bonus for each token.
      device: where the tables are.

    Attributes:
      num_states: states, the start included.
      score: as given.
    """

    def __init__(
        self, phrases: Sequence[Sequence[int]], score: float, device: torch.device = torch.device("cpu")
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
        self.score = score
        self._base = 1 + max((token for c in children for token in c), default=0)
        arcs = sorted(
            (node * self._base + token, child)
            for node, c in enumerate(children)
            for token, child in c.items()
        )
        self._keys = torch.tensor([key for key, _ in arcs] or [-1], dtype=torch.int64, device=device)
        self._children = torch.tensor([child for _, child in arcs] or [0], dtype=torch.int64, device=device)
        self._fail = torch.tensor(fail, dtype=torch.int64, device=device)
        self._value = torch.tensor(depth, dtype=torch.float32, device=device) * score
        self._kept = torch.tensor(kept, dtype=torch.float32, device=device) * score
        self._ends = torch.tensor([k > 0 for k in kept], dtype=torch.bool, device=device)

    def advance(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Bonus and next state after ``token`` in ``state``, all of the same shape."""
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

    def finish(self, state: Tensor) -> Tensor:
        """What is taken back at the end of an utterance in ``state``: the bonus of a phrase not completed, negative."""
        return -self._value[state]

    def continuations(self, state: int) -> Tensor:
        """The tokens (M,) that lead from ``state`` on in a phrase, or begin one."""
        parts: List[Tensor] = []
        while True:
            low, high = torch.searchsorted(
                self._keys, self._keys.new_tensor([state * self._base, (state + 1) * self._base])
            ).tolist()
            parts.append(self._keys[low:high] - state * self._base)
            if state == 0:
                return torch.cat(parts)
            state = int(self._fail[state])

    def _child(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        key = state * self._base + token
        at = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
        return self._children[at], (self._keys[at] == key) & (token < self._base)


class PhraseBoosts:
    """What greedy search, which cannot take anything back, adds to log-probabilities: the score for each token that goes on in a phrase.

    Args:
      graph: the phrases.
      vocab_size: V, number of tokens.
      device: where the search is.
    """

    def __init__(self, graph: ContextGraph, vocab_size: int, device: torch.device) -> None:
        self._graph = graph
        self._rows = torch.zeros(0, vocab_size, device=device)  # of the states met so far
        self._place = torch.full((graph.num_states,), -1, dtype=torch.int64, device=device)

    def start(self, num: int) -> Tensor:
        """States (num,) of streams that have not begun."""
        return self._place.new_zeros(num)

    def __call__(self, state: Tensor) -> Tensor:
        """What each token (n, V) gets in ``state`` (n,)."""
        for new in state[self._place[state] < 0].unique().tolist():
            row = self._rows.new_zeros(1, self._rows.size(1))
            row[0, self._graph.continuations(new)] = self._graph.score
            self._place[new] = len(self._rows)
            self._rows = torch.cat([self._rows, row])
        return self._rows[self._place[state]]

    def advance(self, state: Tensor, token: Tensor, emits: Tensor) -> Tensor:
        """The states after ``token``, where it is emitted."""
        return torch.where(emits, self._graph.advance(state, token)[1], state)


def _links(children: List[Dict[int, int]], ends: List[bool], depth: List[int]) -> Tuple[List[int], List[int]]:
    """For each state the state of its longest proper suffix, and the tokens of the longest phrase that it ends with (0: none)."""
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

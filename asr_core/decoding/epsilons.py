"""Arcs that read no token are taken out of a graph, for searches that take one arc per token."""

import dataclasses
from typing import Dict, List, Tuple

import numpy as np

from asr_core.decoding.fsa import Fsa
from asr_core.utils.errors import UserError

_MOST_STEPS, _MOST_WORDS = 100_000, 100  # on from one state without reading a token; more means going round in circles
_Ways = Dict[Tuple[int, Tuple[int, ...]], float]


def remove_epsilons(graph: Fsa) -> Fsa:
    """An equivalent graph whose arcs all read a token.

    Where an arc comes to write several words, it gets a new output label whose name is these words. Of several ways between two
    states that write the same the best is kept.

    Args:
      graph: with names of its output labels.

    Raises:
      UserError: arcs without a token form a cycle.
    """
    free = graph.label == 0
    if not free.any():
        return graph
    labels = _Outputs(graph)
    source = np.repeat(np.arange(graph.num_states), np.diff(graph.begin))
    arcs = _arcs(graph, ~free, source)
    plain = {s: float(w) for s, w in enumerate(graph.final.tolist()) if w > -np.inf}
    spoken: _Ways = {}
    for state in np.unique(source[free]).tolist():
        for (to, words), score in _ways(graph, state).items():
            for a in range(graph.begin[to], graph.begin[to + 1]):
                if graph.label[a] != 0:
                    output = labels.joined((*words, int(graph.output[a])))
                    arcs.append((state, int(graph.dest[a]), int(graph.label[a]), output, score + float(graph.score[a])))
            end = score + float(graph.final[to])
            if end > -np.inf and words:
                spoken[state, words] = max(end, spoken.get((state, words), -np.inf))
            elif end > -np.inf:
                plain[state] = max(end, plain.get(state, -np.inf))
    out = Fsa.from_arcs(_distinct(arcs), plain, graph.start, graph.num_states)
    return dataclasses.replace(_with_last_words(out, spoken, labels), names=labels.names)


class _Outputs:
    """Output labels for sequences of words."""

    def __init__(self, graph: Fsa) -> None:
        self.names: Dict[int, str] = dict(graph.names or {})
        self._known: Dict[Tuple[int, ...], int] = {}
        self._next = max([*self.names, int(graph.output.max(initial=0))]) + 1

    def joined(self, words: Tuple[int, ...]) -> int:
        """The label that stands for ``words``, 0 among them for none."""
        words = tuple(w for w in words if w != 0)
        if len(words) <= 1:
            return words[0] if words else 0
        if words not in self._known:
            self._known[words] = self._next
            self.names[self._next] = " ".join(self.names[w] for w in words)
            self._next += 1
        return self._known[words]


def _arcs(graph: Fsa, which: np.ndarray, source: np.ndarray) -> List[Tuple[int, int, int, int, float]]:
    columns = (source, graph.dest, graph.label, graph.output, graph.score)
    return list(zip(*(c[which].tolist() for c in columns)))


def _ways(graph: Fsa, state: int) -> _Ways:
    """States that arcs without token lead to from ``state``, the words on the way, and the best score of each."""
    found: _Ways = {}
    todo: List[Tuple[int, Tuple[int, ...], float]] = [(state, (), 0.0)]
    steps = 0
    while todo:
        here, words, score = todo.pop()
        for a in range(graph.begin[here], graph.begin[here + 1]):
            if graph.label[a] != 0:
                break  # labels ascend
            steps += 1
            if steps > _MOST_STEPS or len(words) > _MOST_WORDS:
                raise UserError("the graph has a cycle of arcs without tokens")
            output = int(graph.output[a])
            key = int(graph.dest[a]), (*words, output) if output else words
            total = score + float(graph.score[a])
            if total > found.get(key, -np.inf):
                found[key] = total
                todo.append((*key, total))
    return found


def _distinct(arcs: List[Tuple[int, int, int, int, float]]) -> List[Tuple[int, int, int, int, float]]:
    """Of arcs that differ in their score alone, the best."""
    best: Dict[Tuple[int, int, int, int], float] = {}
    for *key, score in arcs:
        best[tuple(key)] = max(score, best.get(tuple(key), -np.inf))  # type: ignore[index,call-overload]
    return [(*key, score) for key, score in best.items()]


def _with_last_words(graph: Fsa, spoken: _Ways, labels: _Outputs) -> Fsa:
    """Words that a state writes at the end of an utterance go onto the arcs that lead to a copy of it, which only ends."""
    if not spoken:
        return graph
    copies: Dict[int, List[Tuple[int, Tuple[int, ...]]]] = {}
    final = {s: float(w) for s, w in enumerate(graph.final.tolist()) if w > -np.inf}
    for i, ((state, words), score) in enumerate(spoken.items(), graph.num_states):
        copies.setdefault(state, []).append((i, words))
        final[i] = score
    source = np.repeat(np.arange(graph.num_states), np.diff(graph.begin))
    arcs = _arcs(graph, np.ones(graph.num_arcs, dtype=bool), source)
    for here, dest, label, output, score in list(arcs):
        arcs += [(here, copy, label, labels.joined((output, *words)), score) for copy, words in copies.get(dest, ())]
    return Fsa.from_arcs(arcs, final, graph.start, graph.num_states + len(spoken))

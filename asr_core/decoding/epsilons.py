"""Arcs that read no token are taken out of a graph, for searches that take one arc per token."""

import dataclasses
from typing import Dict, List, Sequence, Tuple

import numpy as np

from asr_core.decoding.fsa import Fsa
from asr_core.utils.errors import UserError

_MOST_STEPS, _MOST_WORDS = 100_000, 100  # on from one state without reading a token; more means going round in circles
_Arc = Tuple[int, int, int, int, float]  # source, destination, input label, output label, score
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
    arcs: List[_Arc] = []
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
    kept = [column[~free] for column in (source, graph.dest, graph.label, graph.output, graph.score)]
    out = Fsa.from_columns(_distinct(_joined(kept, arcs)), plain, graph.start, graph.num_states)
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


def _joined(columns: Sequence[np.ndarray], arcs: Sequence[_Arc]) -> List[np.ndarray]:
    """The columns of arcs (source, destination, labels, score) with those of more arcs."""
    more = [np.array(c, x.dtype) for c, x in zip(zip(*arcs), columns)] if arcs else [x[:0] for x in columns]
    return [np.concatenate(pair) for pair in zip(columns, more)]


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


def _distinct(columns: Sequence[np.ndarray]) -> List[np.ndarray]:
    """Of arcs that differ in their score alone, the best."""
    source, dest, label, output, score = columns
    order = np.lexsort((-score, output, dest, label, source))
    keys = np.stack([source, dest, label, output])[:, order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return [column[order[first]] for column in columns]


def _with_last_words(graph: Fsa, spoken: _Ways, labels: _Outputs) -> Fsa:
    """Words that a state writes at the end of an utterance go onto the arcs that lead to a copy of it, which only ends."""
    if not spoken:
        return graph
    copies: Dict[int, List[Tuple[int, Tuple[int, ...]]]] = {}
    final = {s: float(w) for s, w in enumerate(graph.final.tolist()) if w > -np.inf}
    for i, ((state, words), score) in enumerate(spoken.items(), graph.num_states):
        copies.setdefault(state, []).append((i, words))
        final[i] = score
    columns = [np.repeat(np.arange(graph.num_states), np.diff(graph.begin)), graph.dest, graph.label, graph.output, graph.score]
    to_copied = np.isin(graph.dest, list(copies))
    arcs = []
    for here, dest, label, output, score in zip(*(column[to_copied].tolist() for column in columns)):
        arcs += [(here, copy, label, labels.joined((output, *words)), score) for copy, words in copies[dest]]
    return Fsa.from_columns(_joined(columns, arcs), final, graph.start, graph.num_states + len(spoken))

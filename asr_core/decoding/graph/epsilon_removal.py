"""Arcs that read nothing are taken out of a graph, for searches that take one arc per token or frame.

What follows an arc without label is folded into the arcs before it: an arc to a state from which such arcs lead on to others gets
copies that go there at once. Few arcs lead to a history of a grammar, but one for each beginning of a word leaves the history that it backs
off to, so graphs stay small this way and explode the other way round.
"""

import dataclasses
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from asr_core.decoding.graph.fsa import Fsa
from asr_core.utils.errors import UserError

_MOST_STEPS, _MOST_WORDS = (
    100_000,
    100,
)  # on from one state without reading anything; more means going round in circles


def remove_epsilons(graph: Fsa, silent_only: bool = False) -> Fsa:
    """An equivalent graph whose arcs all read a label.

    Where an arc comes to write several words, it gets a new output label whose name is these words. Of several ways between two
    states that read and write the same the best is kept. Words that are said without reading anything at all are lost.

    Args:
      graph: with names of its output labels, unless ``silent_only``.
      silent_only: keep arcs that read nothing but write a word.

    Raises:
      UserError: arcs to be taken out form a cycle.
    """
    free = graph.label == 0
    if silent_only:
        free &= graph.output == 0
    if not free.any():
        return graph
    outputs = _Outputs(graph)
    source = np.repeat(np.arange(graph.num_states), np.diff(graph.begin))
    kept = [column[~free] for column in (source, graph.dest, graph.label, graph.output, graph.score)]
    goes_on = (np.bincount(kept[0], minlength=graph.num_states) > 0) | (graph.final > -np.inf)
    ways = _all_ways(graph, source, free, goes_on, outputs)
    columns = _concatenated([column[goes_on[kept[1]]] for column in kept], _folded(kept, ways, outputs))
    columns = _concatenated(columns, _from_start(columns, ways, graph.start, outputs))
    final = {s: float(w) for s, w in enumerate(graph.final.tolist()) if w > -np.inf}
    for to, words, score in ways.of(graph.start):
        if words == 0 and to in final:
            final[graph.start] = max(final.get(graph.start, -np.inf), score + float(graph.final[to]))
    out = Fsa.from_columns(_distinct(columns), final, graph.start, graph.num_states)
    return dataclasses.replace(out, names=outputs.names if graph.names is not None else None)


class _Outputs:
    """Output labels for sequences of words."""

    def __init__(self, graph: Fsa) -> None:
        self.names: Dict[int, str] = dict(graph.names or {})
        self._label: Dict[Tuple[int, ...], int] = {}
        self._words: Dict[int, Tuple[int, ...]] = {}
        self._next = max([*self.names, int(graph.output.max(initial=0))]) + 1

    def joined(self, first: int, second: int) -> int:
        """The label that stands for what two labels stand for, one after the other; 0 stands for nothing."""
        if first == 0 or second == 0:
            return first or second
        words = (*self._words.get(first, (first,)), *self._words.get(second, (second,)))
        if words not in self._label:
            self._label[words], self._words[self._next] = self._next, words
            self.names[self._next] = " ".join(self.names[w] for w in words)
            self._next += 1
        return self._label[words]

    def length(self, label: int) -> int:
        """How many words it stands for."""
        return len(self._words.get(label, (label,)))

    def joined_columns(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """:meth:`joined` of arrays (n,)."""
        out = np.where(first == 0, second, first)
        (both,) = np.nonzero((first != 0) & (second != 0))
        out[both] = [self.joined(a, b) for a, b in zip(first[both].tolist(), second[both].tolist())]
        return out


class _Ways(NamedTuple):
    """From each state those that arcs without label lead on to, what they write on the way, and the best score.

    The ways from state s are ``begin[s] .. begin[s + 1]``.
    """

    begin: np.ndarray
    to: np.ndarray
    words: np.ndarray
    score: np.ndarray

    def of(self, state: int) -> List[Tuple[int, int, float]]:
        here = slice(self.begin[state], self.begin[state + 1])
        return list(zip(*(column[here].tolist() for column in self[1:])))


def _all_ways(
    graph: Fsa, source: np.ndarray, free: np.ndarray, goes_on: np.ndarray, outputs: _Outputs
) -> _Ways:
    """The ways to states that ``goes_on`` (S,): that have other arcs, or end."""
    arcs: Dict[int, List[Tuple[int, int, float]]] = {}
    for s, *arc in zip(
        *(column[free].tolist() for column in (source, graph.dest, graph.output, graph.score))
    ):
        arcs.setdefault(s, []).append(tuple(arc))
    counts = np.zeros(graph.num_states, np.int64)
    rows: List[Tuple[int, int, float]] = []
    for state in arcs:  # ascending
        found = [(*key, score) for key, score in _ways_from(state, arcs, outputs).items() if goes_on[key[0]]]
        counts[state] = len(found)
        rows += found
    to, words, score = zip(*rows) if rows else ((), (), ())
    begin = np.concatenate([[0], np.cumsum(counts)])
    return _Ways(begin, np.array(to, np.int64), np.array(words, np.int64), np.array(score, np.float64))


def _ways_from(
    state: int, arcs: Dict[int, List[Tuple[int, int, float]]], outputs: _Outputs
) -> Dict[Tuple[int, int], float]:
    found: Dict[Tuple[int, int], float] = {}
    todo, steps = [(state, 0, 0.0)], 0
    while todo:
        here, words, score = todo.pop()
        for dest, output, weight in arcs.get(here, ()):
            steps += 1
            if steps > _MOST_STEPS or outputs.length(words) > _MOST_WORDS:
                raise UserError("the graph has a cycle of arcs without tokens")
            key, total = (dest, outputs.joined(words, output)), score + weight
            if total > found.get(key, -np.inf):
                found[key] = total
                todo.append((*key, total))
    return found


def _folded(columns: Sequence[np.ndarray], ways: _Ways, outputs: _Outputs) -> List[np.ndarray]:
    """Arcs (source, destination, label, output, score) with the ways from their destinations added to them."""
    source, dest, label, output, score = columns
    counts = ways.begin[dest + 1] - ways.begin[dest]
    arc = np.repeat(np.arange(len(dest)), counts)
    way = np.repeat(ways.begin[dest] - (np.cumsum(counts) - counts), counts) + np.arange(len(arc))
    written = outputs.joined_columns(output[arc].astype(np.int64), ways.words[way])
    return [source[arc], ways.to[way], label[arc], written, score[arc] + ways.score[way]]


def _from_start(
    columns: Sequence[np.ndarray], ways: _Ways, start: int, outputs: _Outputs
) -> List[np.ndarray]:
    """Nothing comes before the start: it gets copies of the arcs of those that its ways lead to."""
    out = [column[:0] for column in columns]
    for to, words, way_score in ways.of(start):
        source, dest, label, output, score = (column[columns[0] == to] for column in columns)
        written = outputs.joined_columns(np.full(len(output), words), output.astype(np.int64))
        out = _concatenated(out, [np.full(len(source), start), dest, label, written, score + way_score])
    return out


def _concatenated(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> List[np.ndarray]:
    return [np.concatenate(pair) for pair in zip(first, second)]


def _distinct(columns: Sequence[np.ndarray]) -> List[np.ndarray]:
    """Of arcs that differ in their score alone, the best."""
    source, dest, label, output, score = columns
    order = np.lexsort((-score, output, dest, label, source))
    keys = np.stack([source, dest, label, output])[:, order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return [column[order[first]] for column in columns]

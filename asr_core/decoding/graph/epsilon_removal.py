"""Removal of arcs that read nothing, for searches that take one arc per token or frame.

What follows an arc without label is folded into the arcs before it: an arc to a state from which
such arcs lead on to others gets copies that go there at once. Few arcs lead to a history of a
grammar, but one for each beginning of a word leaves the history that it backs off to, so graphs
stay small this way and explode the other way round.
"""

import dataclasses
from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from asr_core.decoding.graph.fsa import Fsa, FsaArcs
from asr_core.utils.errors import UserError

# From one state, without reading anything, a sane graph allows few steps and few words; more means
# that its arcs form a cycle.
_MOST_STEPS = 100_000
_MOST_WORDS = 100

_Way = Tuple[int, int, float]  # a state, the output label written on the way to it, and the score


def remove_epsilons(graph: Fsa, silent_only: bool = False) -> Fsa:
    """Return an equivalent graph whose arcs all read a label.

    An arc that would write several words gets a new output label, named after these words.
    Of several ways between two states that read and write the same the best is kept. Words that a
    path writes without reading anything at all are lost.

    Args:
      graph: with names of its output labels, unless ``silent_only``.
      silent_only: keep arcs that read nothing but write a word.

    Raises:
      UserError: arcs to be taken out form a cycle.
    """
    free = graph.label == 0  # (A,)
    if silent_only:
        free &= graph.output == 0
    if not free.any():
        return graph
    outputs = _Outputs(graph)
    kept, removed = graph.arcs().at(~free), graph.arcs().at(free)
    goes_on = (np.bincount(kept.source, minlength=graph.num_states) > 0) | (graph.final > -np.inf)
    ways = _all_ways(removed, goes_on, outputs)
    arcs = kept.at(goes_on[kept.dest]).joined(_folded(kept, ways, outputs))
    arcs = arcs.joined(_from_start(arcs, ways, graph.start, outputs))
    final = {s: float(w) for s, w in enumerate(graph.final.tolist()) if w > -np.inf}
    for to, words, score in ways.of(graph.start):
        if words == 0 and to in final:
            final[graph.start] = max(final.get(graph.start, -np.inf), score + float(graph.final[to]))
    out = Fsa.from_arcs(_distinct(arcs), final, graph.start, graph.num_states)
    return dataclasses.replace(out, names=outputs.names if graph.names is not None else None)


class _Outputs:
    """Output labels for sequences of words.

    Attributes:
      names: names of all output labels.
    """

    def __init__(self, graph: Fsa) -> None:
        self.names: Dict[int, str] = dict(graph.names or {})
        self._label: Dict[Tuple[int, ...], int] = {}
        self._words: Dict[int, Tuple[int, ...]] = {}
        self._next = max([*self.names, int(graph.output.max(initial=0))]) + 1

    def joined(self, first: int, second: int) -> int:
        """Return the label for the words of two labels in sequence; 0 stands for no words."""
        if first == 0 or second == 0:
            return first or second
        words = (*self._words.get(first, (first,)), *self._words.get(second, (second,)))
        if words not in self._label:
            self._label[words], self._words[self._next] = self._next, words
            self.names[self._next] = " ".join(self.names[w] for w in words)
            self._next += 1
        return self._label[words]

    def length(self, label: int) -> int:
        """Return the number of words of a label."""
        return len(self._words.get(label, (label,)))

    def joined_columns(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Apply :meth:`joined` to arrays (A,)."""
        out = np.where(first == 0, second, first)
        (both,) = np.nonzero((first != 0) & (second != 0))
        out[both] = [self.joined(a, b) for a, b in zip(first[both].tolist(), second[both].tolist())]
        return out


class _Ways(NamedTuple):
    """From each of S states, the states that arcs without label lead to: W ways in all.

    Attributes:
      begin: (S + 1,); the ways from state s are ``begin[s] .. begin[s + 1]``.
      to: (W,), where each leads.
      words: (W,), output label for what it writes.
      score: (W,), of the best such way.
    """

    begin: np.ndarray
    to: np.ndarray
    words: np.ndarray
    score: np.ndarray

    def of(self, state: int) -> List[_Way]:
        """Return the ways from ``state``."""
        here = slice(self.begin[state], self.begin[state + 1])
        return list(zip(self.to[here].tolist(), self.words[here].tolist(), self.score[here].tolist()))


def _all_ways(removed: FsaArcs, goes_on: np.ndarray, outputs: _Outputs) -> _Ways:
    """Return the ways along ``removed`` arcs to states where ``goes_on`` (S,): that have other
    arcs, or end.
    """
    arcs: Dict[int, List[_Way]] = {}
    columns = (removed.source, removed.dest, removed.output, removed.score)
    for source, dest, output, score in zip(*(column.tolist() for column in columns)):
        arcs.setdefault(source, []).append((dest, output, score))
    counts = np.zeros(len(goes_on), np.int64)
    ways: List[_Way] = []
    for state in arcs:  # ascending
        found = _ways_from(state, arcs, outputs)
        reached = [(to, words, score) for (to, words), score in found.items() if goes_on[to]]
        counts[state] = len(reached)
        ways += reached
    return _Ways(
        begin=np.concatenate([[0], np.cumsum(counts)]),
        to=np.array([to for to, _, _ in ways], np.int64),
        words=np.array([words for _, words, _ in ways], np.int64),
        score=np.array([score for _, _, score in ways], np.float64),
    )


def _ways_from(state: int, arcs: Dict[int, List[_Way]], outputs: _Outputs) -> Dict[Tuple[int, int], float]:
    """Return the best score of each (state, output label) that ``arcs`` by source lead to from
    ``state``.
    """
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


def _folded(arcs: FsaArcs, ways: _Ways, outputs: _Outputs) -> FsaArcs:
    """Return copies of arcs that go on along the ways from their destinations."""
    counts = ways.begin[arcs.dest + 1] - ways.begin[arcs.dest]  # (A,), copies of each arc
    copies = arcs.at(np.repeat(np.arange(len(arcs.dest)), counts))
    first = np.repeat(ways.begin[arcs.dest] - (np.cumsum(counts) - counts), counts)
    way = first + np.arange(len(copies.dest))  # the way that each copy takes
    return copies._replace(
        dest=ways.to[way],
        output=outputs.joined_columns(copies.output.astype(np.int64), ways.words[way]),
        score=copies.score + ways.score[way],
    )


def _from_start(arcs: FsaArcs, ways: _Ways, start: int, outputs: _Outputs) -> FsaArcs:
    """Return copies for the start of the arcs that its ways lead to: nothing comes before it."""
    out = arcs.at(np.zeros(0, np.int64))
    for to, words, score in ways.of(start):
        here = arcs.at(arcs.source == to)
        written = outputs.joined_columns(np.full(len(here.output), words), here.output.astype(np.int64))
        source = np.full(len(here.source), start)
        out = out.joined(here._replace(source=source, output=written, score=here.score + score))
    return out


def _distinct(arcs: FsaArcs) -> FsaArcs:
    """Return the best of arcs that differ in their score alone."""
    order = np.lexsort((-arcs.score, arcs.output, arcs.dest, arcs.label, arcs.source))
    keys = np.stack([arcs.source, arcs.dest, arcs.label, arcs.output])[:, order]  # (4, A)
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return arcs.at(order[first])

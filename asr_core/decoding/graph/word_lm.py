"""Rescoring with a word n-gram: the words of a decoding graph, and all paths of a lattice."""

import logging
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError

_MOST_ARCS = 20_000_000  # five columns of 8 bytes: 0.8 GB
_NO_WORD = -1


class WordLm(NamedTuple):
    """An n-gram and the words of a graph.

    Attributes:
      ngram: over the ids of ``words.txt``.
      words: (L, K) int32, the words of each output label of the graph, padded with -1.
    """

    ngram: NgramLm
    words: np.ndarray

    @classmethod
    def of_graph(cls, ngram: NgramLm, graph: Fsa, table: Mapping[str, int]) -> "WordLm":
        """Build the model for the output labels of ``graph``, named by words of ``table``."""
        names = {**(graph.names or {}), 0: ""}
        ids: List[List[int]] = [[] for _ in range(max(names) + 1)]
        for label, name in names.items():
            ids[label] = [table[word] for word in name.split()]
        out = np.full((len(ids), max(map(len, ids))), _NO_WORD, np.int32)
        for row, found in zip(out, ids):
            row[: len(found)] = found
        return cls(ngram, out)

    def sentence(self, labels: Sequence[int]) -> float:
        """Return the log-probability of the words of output labels, the sentence's end included."""
        words = self.words[list(labels)].reshape(-1).tolist()
        return self.ngram.sentence_log_prob([w for w in words if w != _NO_WORD])

    def advance(self, states: np.ndarray, labels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities (M,) of output labels (M,) after n-gram states (M,), and the
        next states.
        """
        total, states = np.zeros(len(states)), states.copy()
        for column in self.words[labels].T:
            (some,) = np.nonzero(column != _NO_WORD)
            if len(some):
                scores, states[some] = self.ngram.score_batch(states[some], column[some])
                total[some] += scores
        return total, states


class SplitLattice(NamedTuple):
    """A lattice whose arcs have two scores.

    Attributes:
      lattice: the paths; its scores are the acoustic ones, without those of the decoding graph.
      lm: (A,) float64, the language model's.
      lm_final: (nodes,) float64, the language model's score of ending; 0 where a node does not end.
    """

    lattice: Lattice
    lm: np.ndarray
    lm_final: np.ndarray

    def weighted(self, am_scale: float, lm_scale: float) -> Lattice:
        """Return the lattice with the scores am_scale * acoustic + lm_scale * language model."""
        x = self.lattice
        return x._replace(
            score=am_scale * x.score + lm_scale * self.lm, final=am_scale * x.final + lm_scale * self.lm_final
        )


def without_graph_scores(lattice: Lattice, graph: Fsa) -> Lattice:
    """Return the lattice with the acoustic scores alone."""
    score = lattice.score - graph.score[lattice.arc]
    return lattice._replace(score=score, final=np.where(lattice.final > -np.inf, 0.0, -np.inf))


def with_language_model(
    lattice: Lattice, graph: Fsa, lm: WordLm, most_arcs: int = _MOST_ARCS
) -> SplitLattice:
    """Intersect a lattice with an n-gram: all its paths, with the n-gram's exact scores instead of
    the graph's.

    Nodes that different histories lead to are split. Where that makes too many arcs, the lattice is
    pruned with a beam that becomes narrower with each try.

    Args:
      lattice: lattice of a search over ``graph``.
      graph: has words.
      lm: the n-gram.
      most_arcs: maximum number of arcs in the result.
    """
    beam = 4.0
    for _ in range(10):
        found = _intersected(without_graph_scores(lattice, graph), graph.output[lattice.arc], lm, most_arcs)
        if found is not None:
            return found
        lattice = lattice.pruned(beam)
        logging.warning("the lattice is too large for the language model: pruned to a beam of %g", beam)
        beam /= 2
    raise UserError(
        f"an utterance of {lattice.num_frames} frames has too many hypotheses to rescore: lower --output-beam"
    )


class _Layers:
    """The result of an intersection, which grows by the nodes of one frame and the arcs that leave
    them.
    """

    def __init__(self) -> None:
        self.counts: List[np.ndarray] = []  # arcs out of each node
        self.arcs: List[Tuple[np.ndarray, ...]] = []  # destination, scores, lm scores, arcs, frames
        self.num_arcs = 0

    def columns(self) -> Tuple[np.ndarray, ...]:
        """Return destination, score, lm score, arc and frame of all arcs, (A,) each."""
        empty = (np.zeros(0, np.int64),) * 5
        return tuple(np.concatenate(parts) for parts in zip(empty, *self.arcs))


def _intersected(lattice: Lattice, labels: np.ndarray, lm: WordLm, most_arcs: int) -> Optional[SplitLattice]:
    """Return the lattice with output ``labels`` (A,) split by n-gram states; None if it has too
    many arcs.
    """
    num_states = lm.ngram.num_states
    nodes, states = np.zeros(1, np.int64), np.array([lm.ngram.initial_state()], np.int64)
    following, layers = 1, _Layers()  # number of the first node of the next frame
    while True:
        counts = lattice.begin[nodes + 1] - lattice.begin[nodes]
        layers.counts.append(counts)
        if not counts.any():
            break
        layers.num_arcs += int(counts.sum())
        if layers.num_arcs > most_arcs:
            return None
        source = np.repeat(np.arange(len(nodes)), counts)  # (n,)
        first = np.repeat(lattice.begin[nodes] - (np.cumsum(counts) - counts), counts)
        arcs = first + np.arange(len(source))  # (n,), of the given lattice
        scores, after = lm.advance(states[source], labels[arcs])
        pairs, place = np.unique(lattice.dest[arcs] * num_states + after, return_inverse=True)
        layers.arcs.append(
            (following + place, lattice.score[arcs], scores, lattice.arc[arcs], lattice.frame[arcs])
        )
        nodes, states = pairs // num_states, pairs % num_states
        following += len(pairs)
    dest, score, lm_score, arc, frame = layers.columns()
    final, lm_final = np.full(following, -np.inf), np.zeros(following)
    final[following - len(nodes) :] = lattice.final[nodes]
    lm_final[following - len(nodes) :] = [lm.ngram.final_score(int(state)) for state in states]
    whole = Lattice(
        begin=np.concatenate([[0], np.cumsum(np.concatenate(layers.counts))]).astype(np.int64),
        dest=dest.astype(np.int64),
        score=score.astype(np.float64),
        final=final,
        arc=arc.astype(np.int64),
        frame=frame.astype(np.int64),
        num_frames=lattice.num_frames,
    )
    return SplitLattice(whole, lm_score.astype(np.float64), lm_final)

"""A word n-gram on the words of a decoding graph, and on all paths of a lattice."""

import logging
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError

_MOST_ARCS = 20_000_000
_NO_WORD = -1


class WordLm(NamedTuple):
    """An n-gram and the words of a graph.

    Attributes:
      ngram: over the ids of ``words.txt``.
      words: (labels, k) int32, the words that each output label of the graph stands for, padded with -1.
    """

    ngram: NgramLm
    words: np.ndarray

    @classmethod
    def of_graph(cls, ngram: NgramLm, graph: Fsa, table: Mapping[str, int]) -> "WordLm":
        """For the output labels of ``graph``, whose names are words of ``table``."""
        names = {**(graph.names or {}), 0: ""}
        ids: List[List[int]] = [[] for _ in range(max(names) + 1)]
        for label, name in names.items():
            ids[label] = [table[word] for word in name.split()]
        out = np.full((len(ids), max(map(len, ids))), _NO_WORD, np.int32)
        for row, found in zip(out, ids):
            row[: len(found)] = found
        return cls(ngram, out)

    def sentence(self, labels: Sequence[int]) -> float:
        """Log-probability of the words that output labels stand for, the sentence's end included."""
        words = self.words[list(labels)].reshape(-1).tolist()
        return self.ngram.sentence_log_prob([w for w in words if w != _NO_WORD])

    def advance(self, states: np.ndarray, labels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Log-probabilities (M,) of output labels (M,) after n-gram states (M,), and the states that follow."""
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
      lm_final: (nodes,) float64, the language model's of ending; 0 where a node does not end.
    """

    lattice: Lattice
    lm: np.ndarray
    lm_final: np.ndarray

    def weighted(self, am_scale: float, lm_scale: float) -> Lattice:
        """The lattice with the scores am_scale * acoustic + lm_scale * language model."""
        x = self.lattice
        return x._replace(
            score=am_scale * x.score + lm_scale * self.lm, final=am_scale * x.final + lm_scale * self.lm_final
        )


def without_graph_scores(lattice: Lattice, graph: Fsa) -> Lattice:
    """The lattice with the acoustic scores alone."""
    score = lattice.score - graph.score[lattice.arc]
    return lattice._replace(score=score, final=np.where(lattice.final > -np.inf, 0.0, -np.inf))


def with_language_model(
    lattice: Lattice, graph: Fsa, lm: WordLm, most_arcs: int = _MOST_ARCS
) -> SplitLattice:
    """The lattice intersected with an n-gram: all its paths, with the n-gram's exact scores in place of the graph's.

    Nodes that different histories lead to are split. Where that makes too many arcs, the lattice is pruned, and pruned harder.

    Args:
      lattice: of a search over ``graph``.
      graph: has words.
      lm: the n-gram.
      most_arcs: of the result.
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


def _intersected(lattice: Lattice, labels: np.ndarray, lm: WordLm, most_arcs: int) -> Optional[SplitLattice]:
    num_states = lm.ngram.num_states
    nodes, states = np.zeros(1, np.int64), np.array([lm.ngram.initial_state()], np.int64)
    following, num_arcs = 1, 0
    parts: List[List[np.ndarray]] = [
        [] for _ in range(6)
    ]  # arcs out of each node, destination, acoustic score, lm score, arc, frame
    while True:
        counts = lattice.begin[nodes + 1] - lattice.begin[nodes]
        parts[0].append(counts)
        if not counts.any():
            break
        num_arcs += int(counts.sum())
        if num_arcs > most_arcs:
            return None
        source = np.repeat(np.arange(len(nodes)), counts)
        arcs = np.repeat(lattice.begin[nodes] - (np.cumsum(counts) - counts), counts) + np.arange(len(source))
        scores, after = lm.advance(states[source], labels[arcs])
        pairs, place = np.unique(lattice.dest[arcs] * num_states + after, return_inverse=True)
        for part, column in zip(
            parts[1:],
            (following + place, lattice.score[arcs], scores, lattice.arc[arcs], lattice.frame[arcs]),
        ):
            part.append(column)
        nodes, states = pairs // num_states, pairs % num_states
        following += len(pairs)
    counts, dest, score, lm_score, arc, frame = (
        np.concatenate([np.zeros(0, np.int64), *part]) for part in parts
    )
    begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    final, lm_final = np.full(following, -np.inf), np.zeros(following)
    final[following - len(nodes) :] = lattice.final[nodes]
    lm_final[following - len(nodes) :] = [lm.ngram.final_score(int(state)) for state in states]
    columns = (arc.astype(np.int64), frame.astype(np.int64), lattice.num_frames)
    whole = Lattice(begin, dest.astype(np.int64), score.astype(np.float64), final, *columns)
    return SplitLattice(whole, lm_score.astype(np.float64), lm_final)

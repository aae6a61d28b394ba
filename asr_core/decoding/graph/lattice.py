"""Lattices: all paths that survived a search, for one utterance each."""

from typing import List, NamedTuple, Tuple

import numpy as np

from asr_core.ops.cpu import lattice as kernels

_SLACK = 1e-6  # the best path must survive the rounding of its own score


class LatticeArcs(NamedTuple):
    """The arcs of a lattice in any order, all (A,).

    Attributes:
      source, dest: nodes, numbered in the order of time.
      score, arc, frame: see :class:`Lattice`.
    """

    source: np.ndarray
    dest: np.ndarray
    score: np.ndarray
    arc: np.ndarray
    frame: np.ndarray

    def at(self, places: np.ndarray) -> "LatticeArcs":
        """Return the arcs at ``places`` (n,), or where a mask (A,) is true."""
        return LatticeArcs._make(column[places] for column in self)


class Lattice(NamedTuple):
    """The paths of one utterance of T frames, each of T arcs.

    Nodes are the search's states, in the order of time; node 0 is the start.

    Attributes:
      begin: (nodes + 1,) int64; the arcs of node n are ``begin[n] .. begin[n + 1]``.
      dest: (A,) int64.
      score: (A,) float64, natural log-probabilities, the graph's scores included.
      final: (nodes,) float64, score of ending; -inf for all but nodes of the last frame.
      arc: (A,) int64, the decoding graph's arc; -1 for blank.
      frame: (A,) int64.
      num_frames: T.
    """

    begin: np.ndarray
    dest: np.ndarray
    score: np.ndarray
    final: np.ndarray
    arc: np.ndarray
    frame: np.ndarray
    num_frames: int

    def labels(self, of_arc: np.ndarray) -> np.ndarray:
        """Return ``of_arc[arc]`` for each arc, (A,) int64, 0 for blanks."""
        if not len(of_arc):
            return np.zeros(len(self.arc), dtype=np.int64)
        return np.where(self.arc < 0, 0, of_arc[np.maximum(self.arc, 0)].astype(np.int64))

    def random_paths(self, num_paths: int, scale: float, seed: int = 0) -> np.ndarray:
        """Draw paths in proportion to exp(scale * score).

        Returns:
          (P, T) arcs of the lattice, ``num_paths`` rows; (0, T) where the lattice has no path.
        """
        beta = kernels.backward(self.begin, self.dest, self.score, self.final, scale)  # (nodes,)
        if self.num_frames == 0 or not np.isfinite(beta[0]):
            return np.zeros((0, self.num_frames), dtype=np.int64)
        uniform = np.random.default_rng(seed).random((num_paths, self.num_frames))
        return kernels.sample(self.begin, self.dest, self.score, beta, scale, uniform)

    def shortest_path(self) -> Tuple[np.ndarray, float]:
        """Return arcs (T,) and score of the best path; no arcs and -inf where the lattice has no
        path.
        """
        alpha, last = kernels.forward_best(self.begin, self.dest, self.score)  # (nodes,)
        ends = alpha + self.final
        node = int(np.argmax(ends))
        score = float(ends[node])
        if score == -np.inf:
            return np.zeros(0, dtype=np.int64), score
        source = self.sources()
        path = np.empty(self.num_frames, dtype=np.int64)
        for t in range(self.num_frames - 1, -1, -1):
            path[t] = last[node]
            node = source[path[t]]
        return path, score

    def sources(self) -> np.ndarray:
        """Return the node that each arc leaves, (A,) int64."""
        return np.repeat(np.arange(len(self.final)), np.diff(self.begin))

    def pruned(self, beam: float) -> "Lattice":
        """Return the lattice without the arcs whose best path is worse than the best of all by more
        than ``beam``.

        Nodes without arcs go, too.
        """
        alpha, _ = kernels.forward_best(self.begin, self.dest, self.score)  # (nodes,)
        beta = kernels.backward_best(self.begin, self.dest, self.score, self.final)  # (nodes,)
        cut = beta[0] - beam - _SLACK
        arcs = LatticeArcs(self.sources(), self.dest, self.score, self.arc, self.frame)
        good = alpha[arcs.source] + arcs.score + beta[arcs.dest] >= cut  # (A,)
        final = np.where(alpha + self.final >= cut, self.final, -np.inf)
        return from_arcs(arcs.at(good), final, self.num_frames)

    def total_score(self, labels: np.ndarray, sequence: Tuple[int, ...], log_sum: bool) -> float:
        """Return the score of the paths whose ``labels`` (A,), 0 for none, read ``sequence``.

        With ``log_sum`` their probabilities are added up, else the best one counts.
        """
        wanted = np.array(sequence, dtype=np.int64)
        return float(
            kernels.total_score(self.begin, self.dest, self.score, self.final, labels, wanted, log_sum)
        )

    def best_path(self, labels: np.ndarray, sequence: Tuple[int, ...]) -> Tuple[np.ndarray, float]:
        """Return arcs (T,) and score of the best path whose ``labels`` (A,) read ``sequence``."""
        wanted = np.array(sequence, dtype=np.int64)
        return kernels.best_path(self.begin, self.dest, self.score, self.final, labels, wanted)

    def sequences(self, paths: np.ndarray, labels: np.ndarray) -> List[Tuple[int, ...]]:
        """Return the different label sequences of ``paths`` (P, T), in the order in which they
        first come.
        """
        read = labels[paths]  # (P, T)
        return list(dict.fromkeys(tuple(row[row != 0].tolist()) for row in read))


def from_arcs(arcs: LatticeArcs, final: np.ndarray, num_frames: int) -> Lattice:
    """Return the lattice of some arcs; nodes without arcs are dropped, except the start, node 0.

    Args:
      arcs: in any order.
      final: (nodes,) float64, score of ending in each node.
      num_frames: T.
    """
    used = np.zeros(len(final), dtype=bool)
    used[0] = True
    used[arcs.source] = used[arcs.dest] = True
    number = np.cumsum(used) - 1  # (nodes,), the new number of each node
    counts = np.bincount(number[arcs.source], minlength=int(used.sum()))
    sorted_arcs = arcs.at(np.argsort(arcs.source, kind="stable"))
    return Lattice(
        begin=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        dest=number[sorted_arcs.dest].astype(np.int64),
        score=sorted_arcs.score.astype(np.float64),
        final=final[used].astype(np.float64),
        arc=sorted_arcs.arc.astype(np.int64),
        frame=sorted_arcs.frame.astype(np.int64),
        num_frames=num_frames,
    )

"""Lattices: all paths that survived a search, for one utterance each."""

from typing import List, NamedTuple, Tuple

import numpy as np

from asr_core.ops.cpu import lattice as kernels


class Lattice(NamedTuple):
    """The paths of one utterance of T frames, each of T arcs; nodes are the search's states, in the order of time, node 0 the start.

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
        """(A,) int64, ``of_arc[arc]`` of each arc, 0 for blanks."""
        if not len(of_arc):
            return np.zeros(len(self.arc), dtype=np.int64)
        return np.where(self.arc < 0, 0, of_arc[np.maximum(self.arc, 0)].astype(np.int64))

    def random_paths(self, num_paths: int, scale: float, seed: int = 0) -> np.ndarray:
        """Draw paths in proportion to exp(scale * score).

        Returns:
          (num_paths, T) arcs of the lattice; (0, T) where the lattice has no path.
        """
        beta = kernels.backward(self.begin, self.dest, self.score, self.final, scale)
        if self.num_frames == 0 or not np.isfinite(beta[0]):
            return np.zeros((0, self.num_frames), dtype=np.int64)
        uniform = np.random.default_rng(seed).random((num_paths, self.num_frames))
        return kernels.sample(self.begin, self.dest, self.score, beta, scale, uniform)

    def shortest_path(self) -> Tuple[np.ndarray, float]:
        """Arcs (T,) and score of the best path; no arcs and -inf where the lattice has no path."""
        alpha, last = kernels.forward_best(self.begin, self.dest, self.score)
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
        """(A,) int64, the node that each arc leaves."""
        return np.repeat(np.arange(len(self.final)), np.diff(self.begin))

    def pruned(self, beam: float) -> "Lattice":
        """Without the arcs whose best path is worse than the best of all by more than ``beam``, and without idle nodes."""
        alpha, _ = kernels.forward_best(self.begin, self.dest, self.score)
        beta = kernels.backward_best(self.begin, self.dest, self.score, self.final)
        cut = beta[0] - beam - 1e-6
        source = self.sources()
        arcs = np.flatnonzero(alpha[source] + self.score + beta[self.dest] >= cut)
        final = np.where(alpha + self.final >= cut, self.final, -np.inf)
        columns = (source[arcs], self.dest[arcs], self.score[arcs], self.arc[arcs], self.frame[arcs])
        return from_columns(*columns, final=final, num_frames=self.num_frames)

    def total_score(self, labels: np.ndarray, sequence: Tuple[int, ...], log_sum: bool) -> float:
        """Score of all paths (``log_sum``) or of the best one whose ``labels`` (A,), 0 for none, read ``sequence``."""
        wanted = np.array(sequence, dtype=np.int64)
        return float(
            kernels.total_score(self.begin, self.dest, self.score, self.final, labels, wanted, log_sum)
        )

    def best_path(self, labels: np.ndarray, sequence: Tuple[int, ...]) -> Tuple[np.ndarray, float]:
        """Arcs (T,) and score of the best path that reads ``sequence``."""
        wanted = np.array(sequence, dtype=np.int64)
        return kernels.best_path(self.begin, self.dest, self.score, self.final, labels, wanted)

    def sequences(self, paths: np.ndarray, labels: np.ndarray) -> List[Tuple[int, ...]]:
        """The different label sequences of ``paths`` (P, T), in the order in which they first come."""
        read = labels[paths]
        return list(dict.fromkeys(tuple(row[row != 0].tolist()) for row in read))


def from_columns(
    source: np.ndarray,
    dest: np.ndarray,
    score: np.ndarray,
    arc: np.ndarray,
    frame: np.ndarray,
    final: np.ndarray,
    num_frames: int,
) -> Lattice:
    """A lattice of the nodes that arcs (A,) join, renumbered; the others but the start, node 0, go.

    Args:
      source, dest: nodes, in the order of time.
      score, arc, frame: see :class:`Lattice`.
      final: (nodes,).
      num_frames: T.
    """
    used = np.zeros(len(final), dtype=bool)
    used[0] = True
    used[source] = used[dest] = True
    number = np.cumsum(used) - 1
    order = np.argsort(source, kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(number[source], minlength=int(used.sum())))]).astype(
        np.int64
    )
    columns = (number[dest], score, arc, frame)
    dest, score, arc, frame = (np.ascontiguousarray(c[order]) for c in columns)
    ends = final[used].astype(np.float64)
    return Lattice(
        begin,
        dest.astype(np.int64),
        score.astype(np.float64),
        ends,
        arc.astype(np.int64),
        frame.astype(np.int64),
        num_frames,
    )

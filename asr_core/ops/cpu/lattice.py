"""Sums, samples and alignments over lattices: acyclic graphs whose arcs go from earlier nodes to later ones.

Arrays: ``begin`` (nodes + 1,) int64, the arcs of node n are ``begin[n] .. begin[n + 1]``; ``dest`` (A,) int64; ``score`` (A,) float64;
``final`` (nodes,) float64, -inf where a node does not end; node 0 is the start.
"""

from typing import Tuple

import numpy as np
from numba import njit

NEVER = -np.inf


@njit(cache=True, nogil=True)
def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + np.log1p(np.exp(b - a))


@njit(cache=True, nogil=True)
def backward(
    begin: np.ndarray, dest: np.ndarray, score: np.ndarray, final: np.ndarray, scale: float
) -> np.ndarray:
    """(nodes,) log of the summed weights of all paths from each node to the end, scores multiplied by ``scale``."""
    out = final * scale
    for node in range(len(final) - 1, -1, -1):
        total = out[node]
        for a in range(begin[node], begin[node + 1]):
            total = log_add(total, scale * score[a] + out[dest[a]])
        out[node] = total
    return out


@njit(cache=True, nogil=True)
def forward_best(begin: np.ndarray, dest: np.ndarray, score: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Score of the best path from the start to each node (nodes,), -inf where there is none, and its last arc, -1 at the start."""
    nodes = len(begin) - 1
    out, last = np.full(nodes, NEVER), np.full(nodes, -1, np.int64)
    out[0] = 0
    for node in range(nodes):
        for a in range(begin[node], begin[node + 1]):
            if out[node] + score[a] > out[dest[a]]:
                out[dest[a]], last[dest[a]] = out[node] + score[a], a
    return out, last


@njit(cache=True, nogil=True)
def backward_best(begin: np.ndarray, dest: np.ndarray, score: np.ndarray, final: np.ndarray) -> np.ndarray:
    """(nodes,) score of the best path from each node to the end."""
    out = final.copy()
    for node in range(len(final) - 1, -1, -1):
        for a in range(begin[node], begin[node + 1]):
            out[node] = max(out[node], score[a] + out[dest[a]])
    return out


@njit(cache=True, nogil=True)
def sample(
    begin: np.ndarray,
    dest: np.ndarray,
    score: np.ndarray,
    beta: np.ndarray,
    scale: float,
    uniform: np.ndarray,
) -> np.ndarray:
    """Draw paths in proportion to their weights.

    Args:
      beta: of :func:`backward` with the same ``scale``; ``beta[0]`` must be finite.
      uniform: (P, L) numbers in [0, 1), L the longest path.

    Returns:
      (P, L) arcs, -1 behind the end of a path.
    """
    num, length = uniform.shape
    out = np.full((num, length), -1, np.int64)
    for p in range(num):
        node = 0
        for step in range(length):
            left = uniform[p, step]
            chosen = -1
            for a in range(begin[node], begin[node + 1]):
                if beta[dest[a]] == NEVER:
                    continue
                chosen = a
                left -= np.exp(scale * score[a] + beta[dest[a]] - beta[node])
                if left < 0:
                    break
            if chosen < 0:
                break
            out[p, step] = chosen
            node = dest[chosen]
    return out


@njit(inline="always")
def _after(label: int, sequence: np.ndarray, position: int) -> int:
    """The place in ``sequence`` that an arc with this label leads to from ``position``; -1 if it reads something else."""
    if label == 0:
        return position
    return position + 1 if position < len(sequence) and label == sequence[position] else -1


@njit(cache=True, nogil=True)
def total_score(
    begin: np.ndarray,
    dest: np.ndarray,
    score: np.ndarray,
    final: np.ndarray,
    label: np.ndarray,
    sequence: np.ndarray,
    log_sum: bool,
) -> float:
    """The score of all paths (``log_sum``) or of the best path whose labels (A,), 0 for none, read ``sequence`` (L,)."""
    nodes, length = len(final), len(sequence)
    alpha = np.full((nodes, length + 1), NEVER)
    alpha[0, 0] = 0
    total = NEVER
    for node in range(nodes):
        for position in range(length + 1):
            here = alpha[node, position]
            if here == NEVER:
                continue
            for a in range(begin[node], begin[node + 1]):
                to = _after(label[a], sequence, position)
                if to < 0:
                    continue
                value = here + score[a]
                old = alpha[dest[a], to]
                alpha[dest[a], to] = log_add(old, value) if log_sum else max(old, value)
        if alpha[node, length] > NEVER and final[node] > NEVER:
            value = alpha[node, length] + final[node]
            total = log_add(total, value) if log_sum else max(total, value)
    return total


@njit(cache=True, nogil=True)
def best_path(
    begin: np.ndarray,
    dest: np.ndarray,
    score: np.ndarray,
    final: np.ndarray,
    label: np.ndarray,
    sequence: np.ndarray,
) -> Tuple[np.ndarray, float]:
    """The arcs of the best path that reads ``sequence`` and its score; no arcs and -inf where there is none."""
    nodes, length = len(final), len(sequence)
    alpha = np.full((nodes, length + 1), NEVER)
    back, origin = np.full((nodes, length + 1), -1, np.int64), np.full((nodes, length + 1), -1, np.int64)
    alpha[0, 0] = 0
    end, total = -1, NEVER
    for node in range(nodes):
        for position in range(length + 1):
            here = alpha[node, position]
            if here == NEVER:
                continue
            for a in range(begin[node], begin[node + 1]):
                to = _after(label[a], sequence, position)
                if to < 0:
                    continue
                if here + score[a] > alpha[dest[a], to]:
                    alpha[dest[a], to] = here + score[a]
                    back[dest[a], to], origin[dest[a], to] = a, node
        if alpha[node, length] + final[node] > total:
            end, total = node, alpha[node, length] + final[node]
    count, node, position = 0, end, length
    reverse = np.empty(nodes, np.int64)
    while node > 0:
        arc = back[node, position]
        reverse[count] = arc
        count += 1
        node = origin[node, position]
        if label[arc] != 0:
            position -= 1
    return reverse[:count][::-1].copy(), total

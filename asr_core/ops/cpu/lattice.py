"""Sums, samples and alignments over lattices: acyclic graphs whose arcs go from earlier nodes to
later ones.

Arrays: ``begin`` (nodes + 1,) int64, the arcs of node n are ``begin[n] .. begin[n + 1]``; ``dest``
(A,) int64; ``score`` (A,) float64; ``final`` (nodes,) float64, -inf where a node does not end; node
0 is the start.
"""

from typing import Tuple

import numpy as np
from numba import njit

from asr_core.utils.compilation import announce_compilation

announce_compilation()
NEVER = -np.inf
Array = np.ndarray


@njit(cache=True, nogil=True)
def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + np.log1p(np.exp(b - a))


@njit(cache=True, nogil=True)
def backward(begin: Array, dest: Array, score: Array, final: Array, scale: float) -> Array:
    """Return the log of the summed weights of all paths from each node to the end.

    Args:
      begin, dest, score, final: the lattice of N nodes.
      scale: scores are multiplied by it.

    Returns:
      (N,), -inf where no path ends.
    """
    out = final * scale
    for node in range(len(final) - 1, -1, -1):
        total = out[node]
        for a in range(begin[node], begin[node + 1]):
            total = log_add(total, scale * score[a] + out[dest[a]])
        out[node] = total
    return out


@njit(cache=True, nogil=True)
def forward_best(begin: Array, dest: Array, score: Array) -> Tuple[Array, Array]:
    """Return the score of the best path from the start to each node, and its last arc.

    Both are (N,): -inf where there is no path, and -1 at the start.
    """
    nodes = len(begin) - 1
    out, last = np.full(nodes, NEVER), np.full(nodes, -1, np.int64)
    out[0] = 0
    for node in range(nodes):
        for a in range(begin[node], begin[node + 1]):
            if out[node] + score[a] > out[dest[a]]:
                out[dest[a]], last[dest[a]] = out[node] + score[a], a
    return out, last


@njit(cache=True, nogil=True)
def backward_best(begin: Array, dest: Array, score: Array, final: Array) -> Array:
    """Return the score (N,) of the best path from each node to the end."""
    out = final.copy()
    for node in range(len(final) - 1, -1, -1):
        for a in range(begin[node], begin[node + 1]):
            out[node] = max(out[node], score[a] + out[dest[a]])
    return out


@njit(cache=True, nogil=True)
def sample(begin: Array, dest: Array, score: Array, beta: Array, scale: float, uniform: Array) -> Array:
    """Draw paths in proportion to their weights.

    Args:
      begin, dest, score: the lattice.
      beta: (N,) of :func:`backward` with the same ``scale``; ``beta[0]`` must be finite.
      scale: scores are multiplied by it.
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
def _after(label: int, sequence: Array, position: int) -> int:
    """Return the place in ``sequence`` after an arc with this label; -1 if it does not fit."""
    if label == 0:
        return position
    return position + 1 if position < len(sequence) and label == sequence[position] else -1


@njit(cache=True, nogil=True)
def _read(
    begin: Array, dest: Array, score: Array, label: Array, sequence: Array, log_sum: bool, back: Array
) -> Array:
    """Follow the paths whose labels (A,), 0 for none, read ``sequence`` (L,).

    Args:
      log_sum: add up the paths to a node, else take the best.
      back: (N, L + 1), gets the last arc of each best path; (0, 0) where nobody wants it.

    Returns:
      (N, L + 1), the score of reaching each node with each beginning of the sequence read.
    """
    nodes, length = len(begin) - 1, len(sequence)
    alpha = np.full((nodes, length + 1), NEVER)
    alpha[0, 0] = 0
    for node in range(nodes):
        for position in range(length + 1):
            here = alpha[node, position]
            if here == NEVER:
                continue
            for a in range(begin[node], begin[node + 1]):
                to = _after(label[a], sequence, position)
                if to < 0:
                    continue
                value, old = here + score[a], alpha[dest[a], to]
                alpha[dest[a], to] = log_add(old, value) if log_sum else max(old, value)
                if len(back) and value > old:
                    back[dest[a], to] = a
    return alpha


@njit(cache=True, nogil=True)
def total_score(
    begin: Array, dest: Array, score: Array, final: Array, label: Array, sequence: Array, log_sum: bool
) -> float:
    """Return the score of all paths (``log_sum``) or the best that read ``sequence`` (L,)."""
    alpha = _read(begin, dest, score, label, sequence, log_sum, np.empty((0, 0), np.int64))
    total = NEVER
    for node in range(len(final)):
        value = alpha[node, len(sequence)] + final[node]
        total = log_add(total, value) if log_sum else max(total, value)
    return total


@njit(cache=True, nogil=True)
def best_path(
    begin: Array, dest: Array, score: Array, final: Array, label: Array, sequence: Array
) -> Tuple[Array, float]:
    """Return the arcs of the best path that reads ``sequence`` (L,), and its score.

    There are no arcs, and the score is -inf, where no path reads it.
    """
    nodes, position = len(final), len(sequence)
    back = np.full((nodes, position + 1), -1, np.int64)
    alpha = _read(begin, dest, score, label, sequence, False, back)
    node, total = -1, NEVER
    for end in range(nodes):
        if alpha[end, position] + final[end] > total:
            node, total = end, alpha[end, position] + final[end]
    count = 0
    reverse = np.empty(nodes, np.int64)
    while node > 0:
        arc = back[node, position]
        reverse[count] = arc
        count += 1
        node = np.searchsorted(begin, arc, side="right") - 1  # where the arc leaves
        if label[arc] != 0:
            position -= 1
    return reverse[:count][::-1].copy(), total

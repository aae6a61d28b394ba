"""Frames of log-probabilities against a decoding graph: a time-synchronous beam search, and the
lattice of what it kept.

The search passes over an utterance twice. Forwards it remembers, for each frame, the graph's states
within the beam and the score of the best path to each. Backwards it walks the same arcs again, now
knows the score of each in a whole path, and keeps those that are good enough: an arc that does not
reach the lattice is never stored.
"""

from typing import NamedTuple, Tuple

import numpy as np
from numba import njit

from asr_core.ops.cpu.fast_beam import grown

NEVER = -np.inf
SLACK = 1e-6  # the best path must survive the rounding of its own score
_FIRST_ROOM = 1024  # entries that growing arrays have room for at first
Array = np.ndarray


class Graph(NamedTuple):
    """The arcs of a decoding graph of S states, each of which reads one frame.

    Attributes:
      begin: (S + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``.
      label, dest: (A,) int32.
      weight: (A,) float32.
    """

    begin: Array
    label: Array
    dest: Array
    weight: Array


@njit(cache=True, nogil=True)
def _expand(
    state: Array, alpha: Array, row: Array, graph: Graph, beam: float,
    place: Array, new_state: Array, new_alpha: Array,
) -> Tuple[int, float]:  # fmt: skip
    """Follow all arcs out of ``state`` (n,) but those that are worse than the best by more than
    ``beam``.

    Args:
      state, alpha: (n,), the states before the frame and the scores of the best paths to them.
      row: (V,), log-probabilities of the frame.
      graph: the decoding graph.
      beam: greatest distance from the best score.
      place: (S,), -1 everywhere before and after; finds the states reached.
      new_state, new_alpha: (S,), get the states reached.

    Returns:
      Their number and the best score.
    """
    count, top = 0, NEVER
    for i in range(len(state)):
        for a in range(graph.begin[state[i]], graph.begin[state[i] + 1]):
            total = alpha[i] + (np.float64(row[graph.label[a]]) + np.float64(graph.weight[a]))
            if not total >= top - beam or total == NEVER:
                continue
            top = max(top, total)
            at = place[graph.dest[a]]
            if at < 0:
                place[graph.dest[a]] = count
                new_state[count], new_alpha[count] = graph.dest[a], total
                count += 1
            elif total > new_alpha[at]:
                new_alpha[at] = total
    for i in range(count):
        place[new_state[i]] = -1
    return count, top


@njit(cache=True, nogil=True)
def _kept(alpha: Array, cut: float, most: int) -> Array:
    """Return the places of ``alpha`` (N,) that reach ``cut``; of more than ``most`` the best."""
    kept = np.flatnonzero(alpha >= cut)
    if len(kept) > most:
        scores = alpha[kept]
        worst = np.partition(scores, len(scores) - most)[len(scores) - most]
        left = most - np.sum(scores > worst)  # for those that are as good as the worst
        for i in range(len(kept)):
            if scores[i] < worst or (scores[i] == worst and left == 0):
                kept[i] = -1
            elif scores[i] == worst:
                left -= 1
        kept = kept[kept >= 0]
    return kept


@njit(cache=True, nogil=True)
def forward(
    log_probs: Array, graph: Graph, start: int, beam: float, min_active: int, max_active: int
) -> Tuple[Array, Array, Array]:
    """Return the graph's states that are alive after each frame.

    States within ``beam`` of the best live on, at most ``max_active``; where they are fewer than
    ``min_active``, the ``min_active`` best do.

    Args:
      log_probs: (T, V) float32.
      graph: the decoding graph.
      start: its initial state.
      beam, min_active, max_active: limits.

    Returns:
      States (M,) int32, the scores of the best paths to them (M,) float64, and (T + 2,) int64:
      those after t frames are ``first[t] .. first[t + 1]``.
    """
    num_frames, size = len(log_probs), len(graph.begin) - 1
    place = np.full(size, -1, np.int32)
    new_state, new_alpha = np.empty(size, np.int32), np.empty(size, np.float64)
    states, alphas = np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.float64)
    first = np.zeros(num_frames + 2, np.int64)
    states[0], alphas[0], first[1] = start, 0.0, 1
    for t in range(num_frames):
        low, high = first[t], first[t + 1]
        state, alpha, row = states[low:high], alphas[low:high], log_probs[t]
        count, top = _expand(state, alpha, row, graph, beam, place, new_state, new_alpha)
        kept = _kept(new_alpha[:count], top - beam, max_active)
        if len(kept) < min_active:
            count, top = _expand(state, alpha, row, graph, np.inf, place, new_state, new_alpha)
            kept = _kept(new_alpha[:count], NEVER, min(min_active, max_active))
        end = high + len(kept)
        while end > len(states):
            states, alphas = grown(states), grown(alphas)
        states[high:end], alphas[high:end] = new_state[kept], new_alpha[kept]
        first[t + 2] = end
    return states[: first[-1]].copy(), alphas[: first[-1]].copy(), first


@njit(cache=True, nogil=True)
def lattice_arcs(
    log_probs: Array, graph: Graph, states: Array, alphas: Array, first: Array, final: Array, beam: float
) -> Tuple[Array, Array, Array, Array]:
    """Return the arcs whose best path is worse than the best path of all by at most ``beam``.

    Args:
      log_probs: (T, V) float32.
      graph: the decoding graph.
      states, alphas, first: (M,), (M,) and (T + 2,) of :func:`forward`.
      final: the scores of ending in each of the last frame's states, float64, one at least finite.
      beam: greatest distance from the best score.

    Returns:
      For each arc its source and its destination, both places in ``states``, the graph's arc, and
      its score, all (A,); the last frame's arcs come first.
    """
    num_frames = len(log_probs)
    place = np.full(len(graph.begin) - 1, -1, np.int64)
    beta = np.full(len(states), NEVER)
    beta[first[num_frames] :] = final
    cut = np.max(alphas[first[num_frames] :] + final) - beam - SLACK
    source, target = np.empty(_FIRST_ROOM, np.int64), np.empty(_FIRST_ROOM, np.int64)
    arc, score, count = np.empty(_FIRST_ROOM, np.int64), np.empty(_FIRST_ROOM, np.float64), 0
    for t in range(num_frames - 1, -1, -1):
        for m in range(first[t + 1], first[t + 2]):
            place[states[m]] = m if beta[m] > NEVER else -1
        for n in range(first[t], first[t + 1]):
            for a in range(graph.begin[states[n]], graph.begin[states[n] + 1]):
                m = place[graph.dest[a]]
                if m < 0:
                    continue
                value = np.float64(log_probs[t, graph.label[a]]) + np.float64(graph.weight[a])
                if not alphas[n] + value + beta[m] >= cut:
                    continue
                beta[n] = max(beta[n], value + beta[m])
                if count == len(source):
                    source, target, arc, score = grown(source), grown(target), grown(arc), grown(score)
                source[count], target[count], arc[count], score[count] = n, m, a, value
                count += 1
        for m in range(first[t + 1], first[t + 2]):
            place[states[m]] = -1
    return source[:count], target[:count], arc[:count], score[:count]

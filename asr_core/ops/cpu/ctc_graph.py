"""Frames of log-probabilities against a decoding graph: a time-synchronous beam search, and the lattice of what it kept.

The search goes twice over an utterance. Forwards it remembers, for each frame, the graph's states within the beam and the score of the best
path to each. Backwards it walks the same arcs again, knows therefore what each would score in a whole path, and keeps those that are good
enough: what is not going to be in the lattice is never stored.
"""

from typing import Any, Tuple

import numpy as np
from numba import njit

from asr_core.ops.cpu.fast_beam import grown

NEVER = -np.inf
SLACK = 1e-6  # the best path must survive the rounding of its own score


@njit(cache=True, nogil=True)
def _expand(
    state: np.ndarray, alpha: np.ndarray, row: np.ndarray, begin: np.ndarray, label: np.ndarray, dest: np.ndarray, weight: np.ndarray,
    beam: float, place: np.ndarray, new_state: np.ndarray, new_alpha: np.ndarray,
) -> Tuple[int, float]:  # fmt: skip
    """All arcs out of ``state`` (n,), but those that are worse than the best by more than ``beam``.

    The states reached go into ``new_state`` and ``new_alpha``; ``place``, -1 everywhere before and after, finds them.

    Returns:
      their number and the best score.
    """
    count, top = 0, NEVER
    for i in range(len(state)):
        for a in range(begin[state[i]], begin[state[i] + 1]):
            total = alpha[i] + (np.float64(row[label[a]]) + np.float64(weight[a]))
            if not total >= top - beam or total == NEVER:
                continue
            top = max(top, total)
            at = place[dest[a]]
            if at < 0:
                place[dest[a]] = count
                new_state[count], new_alpha[count] = dest[a], total
                count += 1
            elif total > new_alpha[at]:
                new_alpha[at] = total
    for i in range(count):
        place[new_state[i]] = -1
    return count, top


@njit(cache=True, nogil=True)
def _kept(alpha: np.ndarray, cut: float, most: int) -> np.ndarray:
    """Which of ``alpha`` (n,) reach ``cut``; of more than ``most`` the best."""
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
    log_probs: np.ndarray, begin: np.ndarray, label: np.ndarray, dest: np.ndarray, weight: np.ndarray, start: int, beam: float,
    min_active: int, max_active: int,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The graph's states that are alive after each frame.

    Those within ``beam`` of the best live on, at most ``max_active``; where they are fewer than ``min_active``, the best so many do.

    Args:
      log_probs: (T, V) float32.
      begin, label, dest, weight: the graph's arcs; every arc reads one frame.
      start: its initial state.

    Returns:
      States (M,) int32, the scores of the best paths to them (M,) float64, and (T + 2,) int64: those after t frames are
      ``first[t] .. first[t + 1]``.
    """
    num_frames, size = len(log_probs), len(begin) - 1
    place = np.full(size, -1, np.int32)
    new_state, new_alpha = np.empty(size, np.int32), np.empty(size, np.float64)
    states, alphas = np.empty(1024, np.int32), np.empty(1024, np.float64)
    first = np.zeros(num_frames + 2, np.int64)
    states[0], alphas[0], first[1] = start, 0.0, 1
    for t in range(num_frames):
        low, high = first[t], first[t + 1]
        arcs = (begin, label, dest, weight)
        here = (states[low:high], alphas[low:high])
        count, top = _expand(*here, log_probs[t], *arcs, beam, place, new_state, new_alpha)
        kept = _kept(new_alpha[:count], top - beam, max_active)
        if len(kept) < min_active:
            count, top = _expand(*here, log_probs[t], *arcs, np.inf, place, new_state, new_alpha)
            kept = _kept(new_alpha[:count], NEVER, min(min_active, max_active))
        end = high + len(kept)
        while end > len(states):
            states, alphas = grown(states), grown(alphas)
        states[high:end], alphas[high:end] = new_state[kept], new_alpha[kept]
        first[t + 2] = end
    return states[: first[-1]].copy(), alphas[: first[-1]].copy(), first


@njit(cache=True, nogil=True)
def lattice_arcs(
    log_probs: np.ndarray, begin: np.ndarray, label: np.ndarray, dest: np.ndarray, weight: np.ndarray, states: np.ndarray,
    alphas: np.ndarray, first: np.ndarray, final: np.ndarray, beam: float,
) -> Any:  # fmt: skip
    """The arcs whose best path through them is worse than the best path of all by at most ``beam``.

    Args:
      states, alphas, first: of :func:`forward`.
      final: what ending scores in each of the last frame's states; float64, one at least finite.

    Returns:
      for each arc its source and its destination, both places in ``states``, the graph's arc, and its score; the last frame's first.
    """
    num_frames = len(log_probs)
    place = np.full(len(begin) - 1, -1, np.int64)
    beta = np.full(len(states), NEVER)
    beta[first[num_frames] :] = final
    cut = np.max(alphas[first[num_frames] :] + final) - beam - SLACK
    source, target, arc = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.int64)
    score, count = np.empty(1024, np.float64), 0
    for t in range(num_frames - 1, -1, -1):
        for m in range(first[t + 1], first[t + 2]):
            place[states[m]] = m if beta[m] > NEVER else -1
        for n in range(first[t], first[t + 1]):
            for a in range(begin[states[n]], begin[states[n] + 1]):
                m = place[dest[a]]
                if m < 0:
                    continue
                value = np.float64(log_probs[t, label[a]]) + np.float64(weight[a])
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

"""The frame of :mod:`asr_core.ops.fast_beam`, stream by stream."""

from typing import Any, Tuple

import numpy as np
from numba import njit

NEVER = -np.inf


@njit(cache=True, nogil=True)
def contexts_of(code: np.ndarray, score: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See :func:`asr_core.ops.fast_beam.contexts_of`."""
    N, S = code.shape
    codes, streams = np.empty(N * S, np.int64), np.empty(N * S, np.int64)
    index = np.zeros((N, S), np.int64)
    found = 0
    for n in range(N):
        for s in range(S):
            if score[n, s] == NEVER:
                break
            if s == 0 or code[n, s] != code[n, s - 1]:
                codes[found], streams[found] = code[n, s], n
                found += 1
            index[n, s] = found - 1
    return codes[:found], streams[:found], index


@njit(cache=True, nogil=True)
def _worst(scores: np.ndarray, count: int) -> int:
    worst = 0
    for i in range(1, count):
        if scores[i] < scores[worst]:
            worst = i
    return worst


@njit(cache=True, nogil=True)
def _best_contexts(
    code: np.ndarray, graph_state: np.ndarray, score: np.ndarray, index: np.ndarray, log_probs: np.ndarray, begin: np.ndarray,
    label: np.ndarray, weight: np.ndarray, beam: float, base: int, keep: int, blank: int, best_code: np.ndarray, best_score: np.ndarray,
) -> Tuple[int, float]:  # fmt: skip
    """The best contexts of one stream into ``best_code`` (C,) and ``best_score``; returns how many, and the lowest score to keep.

    ``floor`` never falls, so what is below it when it is met cannot be among the best at the end.
    """
    most, count, top, floor, worst = len(best_code), 0, NEVER, NEVER, 0
    for s in range(len(code)):
        if score[s] == NEVER:
            break
        row = log_probs[index[s]]
        for a in range(begin[graph_state[s]] - 1, begin[graph_state[s] + 1]):
            is_blank = a < begin[graph_state[s]]
            total = score[s] + (row[blank] if is_blank else row[label[a]] + weight[a])
            if not total >= floor or total == NEVER:
                continue
            new = code[s] if is_blank else (code[s] % keep) * base + label[a] + 1
            top = max(top, total)
            at = 0
            while at < count and best_code[at] != new:
                at += 1
            if at < count:
                best_score[at] = max(best_score[at], total)
            elif count < most:
                best_code[count], best_score[count] = new, total
                count += 1
            elif total > best_score[worst]:
                best_code[worst], best_score[worst] = new, total
            floor = top - beam
            if count == most:
                worst = _worst(best_score, count)
                floor = max(floor, best_score[worst])
    cut = top - beam
    kept = 0
    for i in range(count):
        if best_score[i] >= cut:
            best_code[kept], best_score[kept] = best_code[i], best_score[i]
            kept += 1
    return kept, cut


@njit(cache=True, nogil=True)
def grown(x: np.ndarray) -> np.ndarray:
    """A copy of ``x`` (n,) with room for as much again."""
    out = np.empty(2 * len(x), x.dtype)
    out[: len(x)] = x
    return out


@njit(cache=True, nogil=True)
def _transitions(
    code: np.ndarray, graph_state: np.ndarray, score: np.ndarray, index: np.ndarray, log_probs: np.ndarray, begin: np.ndarray,
    label: np.ndarray, weight: np.ndarray, cut: float, base: int, keep: int, blank: int, kept_codes: np.ndarray, last: np.ndarray,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Transitions of one stream that reach ``cut`` and lead to one of ``kept_codes``: place, arc, score and context of each.

    ``last`` (V,) is true for the last tokens of the kept contexts.
    """
    source, arc = np.empty(64, np.int64), np.empty(64, np.int64)
    step, context = np.empty(64, np.float32), np.empty(64, np.int64)
    count = 0
    for s in range(len(code)):
        if score[s] == NEVER:
            break
        row = log_probs[index[s]]
        first = begin[graph_state[s]]
        for a in range(first - 1, begin[graph_state[s] + 1]):
            if a >= first and not last[label[a]]:
                continue
            value = np.float32(row[blank] if a < first else row[label[a]] + weight[a])
            if not score[s] + value >= cut:
                continue
            new = code[s] if a < first else (code[s] % keep) * base + label[a] + 1
            at = 0
            while at < len(kept_codes) and kept_codes[at] != new:
                at += 1
            if at == len(kept_codes):
                continue
            if count == len(source):
                source, arc, step, context = grown(source), grown(arc), grown(step), grown(context)
            source[count], arc[count], step[count], context[count] = s, (-1 if a < first else a), value, at
            count += 1
    return source[:count], arc[:count], step[:count], context[:count]


@njit(cache=True, nogil=True)
def _merge(group: np.ndarray, total: np.ndarray, max_states: int) -> Tuple[np.ndarray, np.ndarray]:
    """Place of each transition's state after the frame (-1: dropped) and the best transition of each place; ``group`` ascends."""
    num = 0
    winner, member = np.empty(len(group), np.int64), np.empty(len(group), np.int64)
    for i in range(len(group)):
        if i == 0 or group[i] != group[i - 1]:
            winner[num] = i
            num += 1
        elif total[i] > total[winner[num - 1]]:
            winner[num - 1] = i
        member[i] = num - 1
    winner = winner[:num]
    if num <= max_states:
        return member, winner
    order = np.argsort(-total[winner], kind="mergesort")[:max_states]
    place = np.full(num, -1, np.int64)
    kept = np.sort(order)
    for p in range(max_states):
        place[kept[p]] = p
    return place[member], winner[kept]


@njit(cache=True, nogil=True)
def _appended(chunk: np.ndarray, count: int, more: np.ndarray) -> np.ndarray:
    while count + len(more) > len(chunk):
        chunk = grown(chunk)
    chunk[count : count + len(more)] = more
    return chunk


@njit(cache=True, nogil=True)
def advance(
    code: np.ndarray, graph_state: np.ndarray, score: np.ndarray, index: np.ndarray, log_probs: np.ndarray, begin: np.ndarray,
    label: np.ndarray, dest: np.ndarray, weight: np.ndarray, beam: float, max_contexts: int, max_states: int, base: int, keep: int,
    blank: int, all_transitions: bool,
) -> Any:  # fmt: skip
    """See :func:`asr_core.ops.fast_beam.advance`; arrays in the order of its arguments' fields."""
    N, S = code.shape
    new_code, new_state = np.zeros((N, S), np.int64), np.zeros((N, S), np.int64)
    new_score = np.full((N, S), NEVER)
    parent, taken = np.zeros((N, S), np.int64), np.full((N, S), -1, np.int64)
    rows, sources, targets = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.int64)
    arcs, steps, listed = np.empty(64, np.int64), np.empty(64, np.float32), 0
    best_code, best_score = np.empty(max_contexts, np.int64), np.empty(max_contexts, np.float64)
    last = np.zeros(log_probs.shape[1], np.bool_)
    for n in range(N):
        stream = (code[n], graph_state[n], score[n], index[n])
        kept, cut = _best_contexts(
            *stream, log_probs, begin, label, weight, beam, base, keep, blank, best_code, best_score
        )
        if kept == 0:
            continue
        codes = np.sort(best_code[:kept])
        for c in codes:
            last[c % base - 1] = True
        source, arc, step, context = _transitions(
            *stream, log_probs, begin, label, weight, cut, base, keep, blank, codes, last
        )
        for c in codes:
            last[c % base - 1] = False
        graph_states = len(begin) - 1
        group, total = np.empty(len(arc), np.int64), np.empty(len(arc), np.float64)
        for i in range(len(arc)):
            group[i] = context[i] * graph_states + (graph_state[n, source[i]] if arc[i] < 0 else dest[arc[i]])
            total[i] = score[n, source[i]] + step[i]
        order = np.argsort(group, kind="mergesort")
        member, winner = _merge(group[order], total[order], max_states)
        for p in range(len(winner)):
            i = order[winner[p]]
            new_code[n, p], new_state[n, p], new_score[n, p] = (
                codes[context[i]],
                group[i] % graph_states,
                total[i],
            )
            parent[n, p], taken[n, p] = source[i], arc[i]
        if all_transitions:
            stays = order[member >= 0]
            rows, sources = (
                _appended(rows, listed, np.full(len(stays), n)),
                _appended(sources, listed, source[stays]),
            )
            targets, arcs = (
                _appended(targets, listed, member[member >= 0]),
                _appended(arcs, listed, arc[stays]),
            )
            steps = _appended(steps, listed, step[stays])
            listed += len(stays)
    transitions = (rows[:listed], sources[:listed], targets[:listed], arcs[:listed], steps[:listed])
    return new_code, new_state, new_score, parent, taken, transitions

"""The frame of :mod:`asr_core.ops.fast_beam`, stream by stream."""

from typing import NamedTuple, Tuple

import numpy as np
from numba import njit

from asr_core.utils.compilation import announce_compilation

announce_compilation()
NEVER = -np.inf
_FIRST_ROOM = 64  # entries that growing arrays have room for at first
Array = np.ndarray
Transitions = Tuple[Array, Array, Array, Array, Array]


class _Stream(NamedTuple):
    """The states of one stream before a frame, all (S,): see
    :class:`asr_core.ops.fast_beam.Frontier`.

    Attributes:
      code, graph_state, score: values of each state; -inf from the first empty place on.
      context: the row of its context in the log-probabilities.
    """

    code: Array
    graph_state: Array
    score: Array
    context: Array


class _Graph(NamedTuple):
    """A decoding graph, (G + 1,) and three arrays (A,): :class:`asr_core.ops.fast_beam.Arcs`."""

    begin: Array
    label: Array
    dest: Array
    weight: Array


class _Digits(NamedTuple):
    """The encoding of contexts as integers, see :class:`asr_core.ops.fast_beam.Limits`."""

    base: int
    keep: int
    blank: int


@njit(cache=True, nogil=True)
def contexts_of(code: Array, score: Array) -> Tuple[Array, Array, Array]:
    """See :func:`asr_core.ops.fast_beam.contexts_of`; ``code`` and ``score`` are (N, S)."""
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
def _worst(scores: Array, count: int) -> int:
    worst = 0
    for i in range(1, count):
        if scores[i] < scores[worst]:
            worst = i
    return worst


@njit(cache=True, nogil=True)
def _best_contexts(
    stream: _Stream, graph: _Graph, digits: _Digits, log_probs: Array, beam: float,
    best_code: Array, best_score: Array,
) -> Tuple[int, float]:  # fmt: skip
    """Find the best contexts of one stream after a frame.

    ``floor`` never falls, so what is below it when it is met cannot be among the best at the end.

    Args:
      stream, graph, digits: see there.
      log_probs: (M, V), of the labels in each context.
      beam: greatest distance from the best score.
      best_code, best_score: (C,), get the contexts.

    Returns:
      How many they are, and the lowest score to keep.
    """
    most, count, top, floor, worst = len(best_code), 0, NEVER, NEVER, 0
    for s in range(len(stream.code)):
        if stream.score[s] == NEVER:
            break
        row = log_probs[stream.context[s]]
        first = graph.begin[stream.graph_state[s]]
        for a in range(first - 1, graph.begin[stream.graph_state[s] + 1]):  # first - 1 stands for blank
            is_blank = a < first
            step = row[digits.blank] if is_blank else row[graph.label[a]] + graph.weight[a]
            total = stream.score[s] + step
            if not total >= floor or total == NEVER:
                continue
            new = stream.code[s]
            if not is_blank:
                new = (new % digits.keep) * digits.base + graph.label[a] + 1
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
def grown(x: Array) -> Array:
    """Return a copy of ``x`` (N,) with room for N more."""
    out = np.empty(2 * len(x), x.dtype)
    out[: len(x)] = x
    return out


@njit(cache=True, nogil=True)
def _transitions(
    stream: _Stream, graph: _Graph, digits: _Digits, log_probs: Array, cut: float,
    kept_codes: Array, last: Array,
) -> Tuple[Array, Array, Array, Array]:  # fmt: skip
    """Find the transitions of one stream that reach ``cut`` and lead to one of ``kept_codes``.

    Args:
      stream, graph, digits: see there.
      log_probs: (M, V), of the labels in each context.
      cut: the lowest score.
      kept_codes: (C,) the contexts.
      last: (V,), true for the last tokens of these contexts.

    Returns:
      The place, arc (-1 for blank), score and context of each transition, all (L,).
    """
    source, arc = np.empty(_FIRST_ROOM, np.int64), np.empty(_FIRST_ROOM, np.int64)
    step, context = np.empty(_FIRST_ROOM, np.float32), np.empty(_FIRST_ROOM, np.int64)
    count = 0
    for s in range(len(stream.code)):
        if stream.score[s] == NEVER:
            break
        row = log_probs[stream.context[s]]
        first = graph.begin[stream.graph_state[s]]
        for a in range(first - 1, graph.begin[stream.graph_state[s] + 1]):
            if a >= first and not last[graph.label[a]]:
                continue
            value = np.float32(row[digits.blank] if a < first else row[graph.label[a]] + graph.weight[a])
            if not stream.score[s] + value >= cut:
                continue
            new = stream.code[s]
            if a >= first:
                new = (new % digits.keep) * digits.base + graph.label[a] + 1
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
def _merge(group: Array, total: Array, max_states: int) -> Tuple[Array, Array]:
    """Merge transitions that lead to the same state.

    Args:
      group: (L,), the state of each transition, ascending.
      total: (L,), the score of the path through each.
      max_states: states that are kept, the best ones.

    Returns:
      The place of each transition's state after the frame, (L,), -1 where it is dropped, and the
      best transition of each place, (S,).
    """
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
def _appended(chunk: Array, count: int, more: Array) -> Array:
    """Return ``chunk`` with ``more`` (M,) from place ``count`` on, in a larger array where there is
    no room.
    """
    while count + len(more) > len(chunk):
        chunk = grown(chunk)
    chunk[count : count + len(more)] = more
    return chunk


@njit(cache=True, nogil=True)
def _grouped(
    stream: _Stream, graph: _Graph, source: Array, arc: Array, step: Array, context: Array
) -> Tuple[Array, Array]:
    """Return the state that each transition leads to, as one integer, and the score of the path;
    both (L,).
    """
    graph_states = len(graph.begin) - 1
    group, total = np.empty(len(arc), np.int64), np.empty(len(arc), np.float64)
    for i in range(len(arc)):
        to = stream.graph_state[source[i]] if arc[i] < 0 else graph.dest[arc[i]]
        group[i] = context[i] * graph_states + to
        total[i] = stream.score[source[i]] + step[i]
    return group, total


class _Moves(NamedTuple):
    """The transitions of one stream that were kept by contexts.

    Attributes:
      codes: (C,), the contexts.
      source, arc, step, context: (L,), see :func:`_transitions`.
      group, total: (L,), see :func:`_grouped`.
      order: (L,), the transitions by ``group``.
      member, winner: (L,) and (S,), see :func:`_merge`; of transitions in that order.
    """

    codes: Array
    source: Array
    arc: Array
    step: Array
    context: Array
    group: Array
    total: Array
    order: Array
    member: Array
    winner: Array


@njit(cache=True, nogil=True)
def _moves(
    stream: _Stream, graph: _Graph, digits: _Digits, log_probs: Array, beam: float, max_states: int,
    best_code: Array, best_score: Array, last: Array,
) -> _Moves:  # fmt: skip
    """Advance one stream; ``best_code`` and ``best_score`` (C,) are room for contexts, ``last``
    (V,) is false.
    """
    kept, cut = _best_contexts(stream, graph, digits, log_probs, beam, best_code, best_score)
    codes = np.sort(best_code[:kept])
    for c in codes:
        last[c % digits.base - 1] = True
    source, arc, step, context = _transitions(stream, graph, digits, log_probs, cut, codes, last)
    for c in codes:
        last[c % digits.base - 1] = False
    group, total = _grouped(stream, graph, source, arc, step, context)
    order = np.argsort(group, kind="mergesort")
    member, winner = _merge(group[order], total[order], max_states)
    return _Moves(codes, source, arc, step, context, group, total, order, member, winner)


@njit(cache=True, nogil=True)
def advance(
    code: Array, graph_state: Array, score: Array, index: Array, log_probs: Array,
    begin: Array, label: Array, dest: Array, weight: Array, beam: float, max_contexts: int,
    max_states: int, base: int, keep: int, blank: int, all_transitions: bool,
) -> Tuple[Array, Array, Array, Array, Array, Transitions]:  # fmt: skip
    """See :func:`asr_core.ops.fast_beam.advance`; its arguments' fields in order, (N, S) for
    states.
    """
    N, S = code.shape
    graph, digits = _Graph(begin, label, dest, weight), _Digits(base, keep, blank)
    new_code, new_state = np.zeros((N, S), np.int64), np.zeros((N, S), np.int64)
    new_score = np.full((N, S), NEVER)
    parent, taken = np.zeros((N, S), np.int64), np.full((N, S), -1, np.int64)
    rows, sources = np.empty(_FIRST_ROOM, np.int64), np.empty(_FIRST_ROOM, np.int64)
    targets, arcs = np.empty(_FIRST_ROOM, np.int64), np.empty(_FIRST_ROOM, np.int64)
    steps, listed = np.empty(_FIRST_ROOM, np.float32), 0
    best_code, best_score = np.empty(max_contexts, np.int64), np.empty(max_contexts, np.float64)
    last = np.zeros(log_probs.shape[1], np.bool_)
    for n in range(N):
        stream = _Stream(code[n], graph_state[n], score[n], index[n])
        moves = _moves(stream, graph, digits, log_probs, beam, max_states, best_code, best_score, last)
        for p in range(len(moves.winner)):
            i = moves.order[moves.winner[p]]
            new_code[n, p], new_score[n, p] = moves.codes[moves.context[i]], moves.total[i]
            new_state[n, p] = moves.group[i] % (len(begin) - 1)
            parent[n, p], taken[n, p] = moves.source[i], moves.arc[i]
        if all_transitions:
            stays = moves.order[moves.member >= 0]
            rows = _appended(rows, listed, np.full(len(stays), n))
            sources = _appended(sources, listed, moves.source[stays])
            targets = _appended(targets, listed, moves.member[moves.member >= 0])
            arcs = _appended(arcs, listed, moves.arc[stays])
            steps = _appended(steps, listed, moves.step[stays])
            listed += len(stays)
    transitions = (rows[:listed], sources[:listed], targets[:listed], arcs[:listed], steps[:listed])
    return new_code, new_state, new_score, parent, taken, transitions

"""The frames of CTC prefix beam search, utterance by utterance.

See :mod:`asr_core.decoding.ctc.prefix_beam`. A live prefix is a row of ``score`` (B, 5) and of
``ident`` (B, 5). Its scores are the log-probabilities of its alignments that end in blank and of
those that end in its last token, the scorers' scores, and the log-probabilities of the best
alignment of either kind. Its identity is a hash of its tokens, the hash of all but the last, the
last token, and the links of its two best alignments. A link stands for a token on an alignment:
frame times B plus a place; ``links`` leads from it to the token before (-1: none). Live prefixes
come first.
"""

from typing import Tuple

import numpy as np
from numba import njit

from asr_core.utils.compilation import announce_compilation

announce_compilation()
NEVER = -np.inf
BLANK, TOKEN, EXTRA, BEST_BLANK, BEST_TOKEN = range(5)  # columns of scores
KEY, PARENT_KEY, LAST, LINK_BLANK, LINK_TOKEN = range(5)  # columns of identities
_NOT_GROWN = -2  # instead of a link, for prefixes into which no other grows
Array = np.ndarray


@njit(cache=True, nogil=True)
def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a > b else (b, a)
    return high if low == NEVER else high + np.log1p(np.exp(low - high))


@njit(cache=True, nogil=True)
def _descending(values: Array, count: int) -> Array:
    """Return the order (N,) of the first ``count`` of ``values``, the greatest first.

    This is Shell's sort, which compiles fast.
    """
    order = np.empty(count, np.int64)
    for i in range(count):
        order[i] = i
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            item, at = order[i], i
            while at >= gap and values[order[at - gap]] < values[item]:
                order[at] = order[at - gap]
                at -= gap
            order[at] = item
        gap //= 3
    return order


@njit(cache=True, nogil=True)
def _sift(rank: Array, item: Array, count: int) -> None:
    """Restore the order of a heap, the lowest rank on top, after its top was replaced."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            return
        if child + 1 < count and rank[child + 1] < rank[child]:
            child += 1
        if rank[at] <= rank[child]:
            return
        rank[at], rank[child] = rank[child], rank[at]
        item[at], item[child] = item[child], item[at]
        at = child


@njit(cache=True, nogil=True)
def _push(rank: Array, item: Array, count: int, new_rank: float, new_item: int) -> int:
    """Keep the highest ranks in a heap of at most ``len(rank)``; return how many it holds."""
    if count == len(rank):
        if new_rank > rank[0]:
            rank[0], item[0] = new_rank, new_item
            _sift(rank, item, count)
        return count
    at = count
    while at > 0 and rank[(at - 1) // 2] > new_rank:
        rank[at], item[at] = rank[(at - 1) // 2], item[(at - 1) // 2]
        at = (at - 1) // 2
    rank[at], item[at] = new_rank, new_item
    return count + 1


@njit(cache=True, nogil=True)
def _best_source(score: Array, ident: Array, a: int, needs_blank: bool) -> Tuple[float, int]:
    """Return the score of the best alignment of prefix ``a`` that another token may follow, and its
    link.
    """
    if needs_blank or score[a, BEST_BLANK] >= score[a, BEST_TOKEN]:
        return score[a, BEST_BLANK], ident[a, LINK_BLANK]
    return score[a, BEST_TOKEN], ident[a, LINK_TOKEN]


@njit(cache=True, nogil=True)
def _stay(
    frame: Array, score: Array, ident: Array, total: Array, live: int, blank: int,
    stay: Array, links: Array, came: Array, parent: Array,
) -> None:  # fmt: skip
    """Compute scores and links of the live prefixes that do not grow.

    Prefix a may grow into prefix i, which is live already: their probabilities add up there.

    Args:
      frame: (V,) log-probabilities.
      score, ident: (B, 5), before the frame.
      total: (B,) log-probability of each prefix.
      live: number of prefixes.
      blank: its id.
      stay, links: (live, 5) and (live, 2), get the scores and the links.
      came: (live,), gets the link that the best alignment of i came from where it grew now.
      parent: (live,), gets a, or -1.
    """
    for i in range(live):
        last = ident[i, LAST]
        stay[i, BLANK] = total[i] + frame[blank]
        stay[i, TOKEN] = score[i, TOKEN] + frame[last]
        stay[i, EXTRA] = score[i, EXTRA]
        best, link = _best_source(score, ident, i, False)
        stay[i, BEST_BLANK], links[i, 0] = best + frame[blank], link
        stay[i, BEST_TOKEN], links[i, 1] = score[i, BEST_TOKEN] + frame[last], ident[i, LINK_TOKEN]
        came[i], parent[i] = _NOT_GROWN, -1
        if last == blank:
            stay[i, TOKEN] = stay[i, BEST_TOKEN] = NEVER
            continue
        wanted = ident[i, PARENT_KEY]
        for a in range(live):
            if ident[a, KEY] == wanted:
                parent[i] = a
                again = ident[a, LAST] == last
                stay[i, TOKEN] = _log_add(
                    stay[i, TOKEN], (score[a, BLANK] if again else total[a]) + frame[last]
                )
                best, link = _best_source(score, ident, a, again)
                if best + frame[last] > stay[i, BEST_TOKEN]:
                    stay[i, BEST_TOKEN], came[i] = best + frame[last], link
                break


@njit(cache=True, nogil=True)
def _select(
    frame: Array, score: Array, ident: Array, total: Array, live: int, blank: int,
    stay: Array, parent: Array, rank: Array, item: Array,
) -> int:  # fmt: skip
    """Choose the best prefixes after a frame; return how many there are.

    Tokens are tried from the most probable on, and no further than they can matter.

    Args:
      frame, score, ident, total, live, blank, stay, parent: as of :func:`_stay`, (V,), (B, 5), ...
      rank, item: (B,), get the scores of the prefixes, and -1 - i for prefix i that stays,
        a * V + v for a that grows by v.
    """
    num_tokens, count = len(frame), 0
    base, highest = np.empty(live), NEVER
    for i in range(live):
        base[i] = total[i] + score[i, EXTRA]
        highest = max(highest, base[i])
        value = _log_add(stay[i, BLANK], stay[i, TOKEN]) + stay[i, EXTRA]
        if value > NEVER:
            count = _push(rank, item, count, value, -1 - i)
    floor = rank[0] if count == len(rank) else NEVER
    useful, value_of, taken, found = (
        np.empty(num_tokens, np.int64),
        np.empty(num_tokens),
        np.empty(num_tokens, np.int64),
        0,
    )
    for v in range(num_tokens):
        taken[v] = -1
        if frame[v] > floor - highest:
            useful[found], value_of[found] = v, frame[v]
            found += 1
    tokens_in_order = _descending(value_of, found)
    for a in _descending(base, live):
        for i in range(live):
            if parent[i] == a:
                taken[ident[i, LAST]] = a
        for at in range(found):
            v = useful[tokens_in_order[at]]
            floor = rank[0] if count == len(rank) else NEVER
            value = base[a] + frame[v]
            if value <= floor:
                break
            if v == blank or taken[v] == a:
                continue
            if v == ident[a, LAST]:  # the same token twice needs a blank between
                value = score[a, BLANK] + score[a, EXTRA] + frame[v]
            if value > floor:
                count = _push(rank, item, count, value, a * num_tokens + v)
    return count


@njit(cache=True, nogil=True)
def _frame(
    frame: Array, score: Array, ident: Array, now: int, blank: int, factor: int,
    parents: Array, tokens: Array, links: Array,
) -> None:  # fmt: skip
    """Search one frame (V,) of one utterance, number ``now``; see :func:`advance`."""
    beam, live = len(score), 0
    total = np.empty(beam)
    while live < beam:
        total[live] = _log_add(score[live, BLANK], score[live, TOKEN])
        if total[live] == NEVER:
            break
        live += 1
    if live == 0:
        return
    stay, stay_links = np.empty((live, 5)), np.empty((live, 2), np.int64)
    came, parent = np.empty(live, np.int64), np.empty(live, np.int64)
    _stay(frame, score, ident, total, live, blank, stay, stay_links, came, parent)
    rank, item = np.empty(beam), np.empty(beam, np.int64)
    count = _select(frame, score, ident, total, live, blank, stay, parent, rank, item)
    old_score, old_ident = np.empty((beam, 5)), np.empty((beam, 5), np.int64)
    for place in range(beam):
        for column in range(5):
            old_score[place, column], old_ident[place, column] = score[place, column], ident[place, column]
            score[place, column] = 0.0 if column == EXTRA else NEVER
    order = _descending(rank, count)
    for place in range(count):
        choice, link = item[order[place]], now * beam + place
        if choice < 0:
            a, v = -1 - choice, blank
            for column in range(5):
                score[place, column], ident[place, column] = stay[a, column], old_ident[a, column]
            ident[place, LINK_BLANK], ident[place, LINK_TOKEN] = stay_links[a, 0], stay_links[a, 1]
            if came[a] != _NOT_GROWN:
                ident[place, LINK_TOKEN], links[place] = link, came[a]
        else:
            a, v = choice // len(frame), choice % len(frame)
            again = v == old_ident[a, LAST]
            best, links[place] = _best_source(old_score, old_ident, a, again)
            score[place, TOKEN] = (old_score[a, BLANK] if again else total[a]) + frame[v]
            score[place, EXTRA] = old_score[a, EXTRA]
            score[place, BEST_TOKEN] = best + frame[v]
            key = old_ident[a, KEY]
            ident[place, KEY], ident[place, PARENT_KEY], ident[place, LAST] = key * factor + v + 1, key, v
            ident[place, LINK_BLANK], ident[place, LINK_TOKEN] = -1, link
        parents[place], tokens[place] = a, v


@njit(cache=True, nogil=True)
def advance(
    log_probs: Array, first: Array, last: Array, score: Array, ident: Array, begin: Array,
    blank: int, factor: int, parents: Array, tokens: Array, links: Array,
) -> None:  # fmt: skip
    """Search frames ``log_probs[n, first[n] : last[n]]`` (N, T, V) of N utterances.

    Args:
      score, ident: (N, B, 5), the live prefixes, changed in place.
      begin: (N,) frames that each utterance had before those of ``log_probs``.
      blank: its id.
      factor: base of the polynomial hashes.
      parents, tokens: (N, T, B) int32; for each place the place that its prefix came from, and the
        token that it got or blank.
      links: (N, T, B) int64, valid where a link points.
    """
    for n in range(len(first)):
        for t in range(first[n], last[n]):
            _frame(
                log_probs[n, t],
                score[n],
                ident[n],
                begin[n] + t,
                blank,
                factor,
                parents[n, t],
                tokens[n, t],
                links[n, t],
            )


@njit(cache=True, nogil=True)
def trace_back(
    parents: Array, tokens: Array, links: Array, blank: int, place: int, link: int
) -> Tuple[Array, Array]:
    """Return the tokens of a prefix and their frames.

    Args:
      parents, tokens, links: (T, B), of :func:`advance`.
      blank: its id.
      place: place of the prefix after the last frame.
      link: the last token of the alignment whose frames are wanted.
    """
    found, times = np.empty(len(parents), np.int64), np.empty(len(parents), np.int64)
    length, beam = 0, parents.shape[1]
    for t in range(len(parents) - 1, -1, -1):
        if tokens[t, place] != blank:
            found[length] = tokens[t, place]
            length += 1
        place = parents[t, place]
    for k in range(length):
        times[k] = link // beam
        link = links[times[k], link % beam]
    return found[:length][::-1], times[:length][::-1]

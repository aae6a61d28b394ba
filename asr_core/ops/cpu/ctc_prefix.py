"""Frames of CTC prefix beam search, utterance by utterance (see :mod:`asr_core.decoding.ctc_prefix`).

A live prefix is a row of ``score`` (B, 5) and of ``ident`` (B, 5). Its scores are the log-probabilities of its alignments that end in
blank and of those that end in its last token, what scorers gave it, and the log-probabilities of the best alignment of either kind. It is
known by a hash of its tokens, the hash of all but the last, the last token, and the links of its two best alignments. A link stands for a
token on an alignment: frame times B plus a place; ``links`` leads from it to the token before, -1 is none. Live prefixes come first.
"""

from typing import Tuple

import numpy as np
from numba import njit

NEVER = -np.inf
BLANK, TOKEN, EXTRA, BEST_BLANK, BEST_TOKEN = range(5)  # columns of scores
KEY, PARENT_KEY, LAST, LINK_BLANK, LINK_TOKEN = range(5)  # columns of identities


@njit(cache=True, nogil=True)
def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a > b else (b, a)
    return high if low == NEVER else high + np.log1p(np.exp(low - high))


@njit(cache=True, nogil=True)
def _sift(rank: np.ndarray, item: np.ndarray, count: int) -> None:
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
def _push(rank: np.ndarray, item: np.ndarray, count: int, new_rank: float, new_item: int) -> int:
    """Keep the highest ranks in a heap of at most ``len(rank)``; returns how many it holds."""
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
def _best_source(score: np.ndarray, ident: np.ndarray, needs_blank: bool) -> Tuple[float, int]:
    """The best alignment of a prefix that another token may follow, and its link."""
    if needs_blank or score[BEST_BLANK] >= score[BEST_TOKEN]:
        return score[BEST_BLANK], ident[LINK_BLANK]
    return score[BEST_TOKEN], ident[LINK_TOKEN]


@njit(cache=True, nogil=True)
def _stay(
    frame: np.ndarray, score: np.ndarray, ident: np.ndarray, total: np.ndarray, blank: int, stay: np.ndarray, links: np.ndarray,
    came: np.ndarray, parent: np.ndarray,
) -> None:  # fmt: skip
    """Scores and links of the live prefixes that do not grow.

    Prefix a may grow into prefix i, which is live already: their probabilities add up there. ``parent[i]`` is a or -1; ``came[i]`` is
    the link that the best alignment of i came from where it grew now, else -2.
    """
    for i in range(len(total)):
        last = ident[i, LAST]
        stay[i, BLANK] = total[i] + frame[blank]
        stay[i, TOKEN] = score[i, TOKEN] + frame[last]
        stay[i, EXTRA] = score[i, EXTRA]
        best, link = _best_source(score[i], ident[i], False)
        stay[i, BEST_BLANK], links[i, 0] = best + frame[blank], link
        stay[i, BEST_TOKEN], links[i, 1] = score[i, BEST_TOKEN] + frame[last], ident[i, LINK_TOKEN]
        came[i], parent[i] = -2, -1
        if last == blank:
            stay[i, TOKEN] = stay[i, BEST_TOKEN] = NEVER
            continue
        wanted = ident[i, PARENT_KEY]
        for a in range(len(total)):
            if ident[a, KEY] == wanted:
                parent[i] = a
                again = ident[a, LAST] == last
                stay[i, TOKEN] = _log_add(stay[i, TOKEN], (score[a, BLANK] if again else total[a]) + frame[last])
                best, link = _best_source(score[a], ident[a], again)
                if best + frame[last] > stay[i, BEST_TOKEN]:
                    stay[i, BEST_TOKEN], came[i] = best + frame[last], link
                break


@njit(cache=True, nogil=True)
def _select(
    frame: np.ndarray, score: np.ndarray, ident: np.ndarray, total: np.ndarray, blank: int, stay: np.ndarray, parent: np.ndarray,
    rank: np.ndarray, item: np.ndarray,
) -> int:  # fmt: skip
    """The best prefixes into ``rank`` and ``item`` (B,): -1 - i for prefix i that stays, a * V + v for a that grows by v.

    Tokens are tried from the most probable on, and no further than they can matter. Returns how many there are.
    """
    num_tokens, live, count = len(frame), len(total), 0
    base = total + score[:live, EXTRA]
    for i in range(live):
        value = _log_add(stay[i, BLANK], stay[i, TOKEN]) + stay[i, EXTRA]
        if value > NEVER:
            count = _push(rank, item, count, value, -1 - i)
    floor = rank[0] if count == len(rank) else NEVER
    useful = np.flatnonzero(frame > floor - base.max())
    useful = useful[np.argsort(-frame[useful])]
    taken = np.full(num_tokens, -1, np.int64)
    for a in np.argsort(-base):
        for i in range(live):
            if parent[i] == a:
                taken[ident[i, LAST]] = a
        for v in useful:
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
    frame: np.ndarray, score: np.ndarray, ident: np.ndarray, now: int, blank: int, factor: int, parents: np.ndarray, tokens: np.ndarray,
    links: np.ndarray,
) -> None:  # fmt: skip
    """One frame (V,) of one utterance; changes ``score`` and ``ident``, notes where each place came from."""
    beam, live = len(score), 0
    total = np.empty(beam)
    while live < beam:
        total[live] = _log_add(score[live, BLANK], score[live, TOKEN])
        if total[live] == NEVER:
            break
        live += 1
    total = total[:live]
    if live == 0:
        return
    stay, stay_links = np.empty((live, 5)), np.empty((live, 2), np.int64)
    came, parent = np.empty(live, np.int64), np.empty(live, np.int64)
    _stay(frame, score, ident, total, blank, stay, stay_links, came, parent)
    rank, item = np.empty(beam), np.empty(beam, np.int64)
    count = _select(frame, score, ident, total, blank, stay, parent, rank, item)
    old_score, old_ident = score.copy(), ident.copy()
    score[:, :] = NEVER
    score[:, EXTRA] = 0.0
    for place, k in enumerate(np.argsort(-rank[:count])):
        link = now * beam + place
        if item[k] < 0:
            a, v = -1 - item[k], blank
            score[place], ident[place] = stay[a], old_ident[a]
            ident[place, LINK_BLANK], ident[place, LINK_TOKEN] = stay_links[a]
            if came[a] != -2:
                ident[place, LINK_TOKEN], links[place] = link, came[a]
        else:
            a, v = divmod(item[k], len(frame))
            again = v == old_ident[a, LAST]
            best, links[place] = _best_source(old_score[a], old_ident[a], again)
            score[place, TOKEN] = (old_score[a, BLANK] if again else total[a]) + frame[v]
            score[place, EXTRA] = old_score[a, EXTRA]
            score[place, BEST_TOKEN] = best + frame[v]
            key = old_ident[a, KEY]
            ident[place, KEY], ident[place, PARENT_KEY], ident[place, LAST] = key * factor + v + 1, key, v
            ident[place, LINK_BLANK], ident[place, LINK_TOKEN] = -1, link
        parents[place], tokens[place] = a, v


@njit(cache=True, nogil=True)
def advance(
    log_probs: np.ndarray, lens: np.ndarray, score: np.ndarray, ident: np.ndarray, begin: np.ndarray, blank: int, factor: int,
    parents: np.ndarray, tokens: np.ndarray, links: np.ndarray,
) -> None:  # fmt: skip
    """Search frames ``log_probs[n, :lens[n]]`` (N, T, V) of N utterances.

    Args:
      score, ident: (N, B, 5), the live prefixes, changed in place.
      begin: (N,) frames that each utterance had before.
      blank: its id.
      factor: what hashes are multiplied by.
      parents, tokens: (N, T, B) int32; for each place the place that its prefix came from, and the token that it got or blank.
      links: (N, T, B) int64, valid where a link points.
    """
    for n in range(len(lens)):
        for t in range(lens[n]):
            _frame(log_probs[n, t], score[n], ident[n], begin[n] + t, blank, factor, parents[n, t], tokens[n, t], links[n, t])


@njit(cache=True, nogil=True)
def trace_back(
    parents: np.ndarray, tokens: np.ndarray, links: np.ndarray, blank: int, place: int, link: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Tokens of the prefix at ``place`` after the last frame of (T, B), and their frames on the alignment that ends with ``link``."""
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

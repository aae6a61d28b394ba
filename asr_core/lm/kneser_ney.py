"""Interpolated modified Kneser-Ney estimation of n-gram models.

Kneser and Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995; Chen and Goodman,
"An empirical study of smoothing techniques for language modeling", 1999, sections 4.1.6 and 4.1.7.
"""

import logging
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Tuple

import numpy as np

from asr_core.lm.arpa import Arpa, write_arpa
from asr_core.lm.symbols import BOS, EOS, UNKNOWN
from asr_core.utils.errors import UserError
from asr_core.utils.files import open_binary
from asr_core.utils.paths import PathLike

_AT_ONCE = 1 << 22  # positions of the text whose n-grams are counted at once, to bound memory
_FIXED = (0.5, 1.0, 1.5)  # discounts of counts 1, 2 and 3 or more, for texts too small to estimate them
_BOS, _EOS, _UNK = 0, 1, 2


@dataclass(frozen=True)
class Counts:
    """The different k-grams of a text, in the order of their keys ``prefix * V + word``.

    Attributes:
      prefix: (n,) int32, number of the (k-1)-gram that each begins with; 0 for unigrams.
      word: (n,) int32, its last word.
      suffix: (n,) int32, number of the (k-1)-gram that it ends with; 0 for unigrams.
      count: (n,) int64, how often it occurs.
    """

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    count: np.ndarray


def estimate(path: PathLike, order: int) -> Arpa:
    """Estimate an n-gram model from a text, one sentence a line, words separated by white space.

    Unigrams are interpolated with the uniform distribution over all words, ``</s>`` and ``<unk>``,
    so that every word has a probability, unknown ones too. N-grams that begin with ``<s>`` use
    plain counts in lower orders, as nothing precedes them.

    Args:
      path: the text, ``.gz`` or plain.
      order: length of the longest n-grams, from 1.

    Raises:
      UserError: the text is missing, empty or not UTF-8, or contains ``<s>`` or ``</s>``.
    """
    symbols, stream = read_text(path)
    tables = count_ngrams(stream, len(symbols), order)
    del stream
    return _estimate(tables, symbols)


def estimate_to_file(text: PathLike, order: int, target: PathLike) -> None:
    """Write the model of a text as an ARPA file; arguments and errors as :func:`estimate`."""
    arpa = estimate(text, order)
    write_arpa(target, arpa)
    counts = ", ".join(f"{len(words)} {k}-grams" for k, words in enumerate(arpa.words, 1))
    logging.info("%s: %s", target, counts)


def read_text(path: PathLike) -> Tuple[Dict[str, int], np.ndarray]:
    """Read a text; return the ids of its words, and all of it as ids (L,) int32.

    ``<s>`` is 0, ``</s>`` 1, ``<unk>`` 2; the first two stand around each sentence.
    """
    path = Path(path)
    ids: Dict[bytes, int] = {BOS.encode(): _BOS, EOS.encode(): _EOS, UNKNOWN[0].encode(): _UNK}
    stream = array("i")
    try:
        with open_binary(path) as f:
            for number, words in _sentences(f):
                line = [ids.setdefault(word, len(ids)) for word in words]
                if line and min(line) < _UNK:
                    raise UserError(
                        f"{path}:{number}: the text contains {BOS} or {EOS}, "
                        "which mark the ends of sentences: remove them"
                    )
                if line:
                    stream.append(_BOS)
                    stream.extend(line)
                    stream.append(_EOS)
        symbols = {word.decode(): i for word, i in ids.items()}
    except (OSError, EOFError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the text {path}: {e}") from e
    if not stream:
        raise UserError(f"{path} has no words")
    return symbols, np.frombuffer(stream, dtype=np.int32)


def _sentences(file: BinaryIO) -> Iterator[Tuple[int, List[bytes]]]:
    for number, line in enumerate(file, 1):
        yield number, line.split()


def count_ngrams(stream: np.ndarray, vocab_size: int, order: int) -> List[Counts]:
    """Count the n-grams of each order up to ``order`` in a text.

    Memory: 8 bytes for each word of the text, 40 for each different n-gram.

    Args:
      stream: (L,) int32, the text as ids, see :func:`read_text`.
      vocab_size: V, the number of ids.
      order: length of the longest n-grams.
    """
    tables: List[Counts] = []
    # (L,), number of the (k-1)-gram that starts at each place; -1: it crosses a sentence's end.
    numbers = np.zeros(len(stream), dtype=np.int32)
    keys_before = np.zeros(0, dtype=np.int64)
    for k in range(1, order + 1):
        keys, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        pieces = list(range(0, len(stream) - k + 1, _AT_ONCE))
        for begin in pieces:
            found, how_often = np.unique(_keys(stream, numbers, begin, k, vocab_size), return_counts=True)
            inside = slice(1 if len(found) and found[0] < 0 else 0, None)
            keys, counts = _merge(keys, counts, found[inside], how_often[inside])
        prefix, word = np.divmod(keys, vocab_size)
        if k == 1:
            suffix = np.zeros(len(keys), dtype=np.int64)
        elif k == 2:
            suffix = np.searchsorted(keys_before, word)
        else:
            suffix = np.searchsorted(
                keys_before, tables[-1].suffix[prefix].astype(np.int64) * vocab_size + word
            )
        tables.append(Counts(prefix.astype(np.int32), word.astype(np.int32), suffix.astype(np.int32), counts))
        if k < order:
            for begin in pieces:
                now = _keys(stream, numbers, begin, k, vocab_size)
                numbers[begin : begin + len(now)] = np.where(now < 0, -1, np.searchsorted(keys, now))
            numbers[max(0, len(stream) - k + 1) :] = -1
        keys_before = keys
    return tables


def _keys(stream: np.ndarray, numbers: np.ndarray, begin: int, k: int, vocab_size: int) -> np.ndarray:
    """Return the keys of the k-grams from ``begin`` on; -1 for those across a sentence end."""
    end = min(begin + _AT_ONCE, len(stream) - k + 1)
    prefix, word = numbers[begin:end].astype(np.int64), stream[begin + k - 1 : end + k - 1]
    crosses = (prefix < 0) | ((word == _BOS) & (k > 1))
    return np.where(crosses, -1, prefix * vocab_size + word)


def _merge(
    keys: np.ndarray, counts: np.ndarray, more: np.ndarray, more_counts: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Add up the counts of two lists of keys (n,) and (m,), both ascending."""
    if not len(keys):
        return more, more_counts
    merged, where = np.unique(np.concatenate([keys, more]), return_inverse=True)
    return merged, np.bincount(where, weights=np.concatenate([counts, more_counts])).astype(np.int64)


def adjusted_counts(tables: List[Counts], k: int) -> np.ndarray:
    """Return the Kneser-Ney count (n,) of each k-gram.

    In the highest order that is its number of occurrences, in lower ones the number of different
    words that precede it (Kneser and Ney 1995).
    """
    table = tables[k - 1]
    if k == len(tables):
        return table.count
    preceded = np.bincount(tables[k].suffix, minlength=len(table.word))
    # Nothing precedes <s>: its n-grams keep their plain counts.
    return np.where(preceded > 0, preceded, table.count)


def discounts(adjusted: np.ndarray, order: int) -> np.ndarray:
    """Return the discounts (4,) of counts 0, 1, 2 and 3 or more.

    They are Chen and Goodman's D1, D2, D3+ (section 4.1.7) from the numbers n1 to n4 of n-grams
    counted once to four times. Where the text is too small for that (one of them is 0, or a
    discount is outside (0, count)), there is one discount n1 / (n1 + 2 n2) for all, and where n1 or
    n2 is 0, too, fixed values.

    Args:
      adjusted: (n,) counts, see :func:`adjusted_counts`.
      order: order of the n-grams, for the log.
    """
    n1, n2, n3, n4 = (int((adjusted == c).sum()) for c in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        out = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (out[1:] > 0).all() and (out[1:] < [1, 2, 3]).all():
            return out
    if n1 > 0 and n2 > 0:
        y = n1 / (n1 + 2 * n2)
        logging.info("%d-grams: too little text for three discounts; one of %.4g", order, y)
        return np.array([0.0, y, y, y])
    logging.info("%d-grams: too little text to estimate discounts; %s", order, _FIXED)
    return np.array([0.0, *_FIXED])


def _estimate(tables: List[Counts], symbols: Dict[str, int]) -> Arpa:
    """Estimate the model from the counts of all orders.

    p(w | h) = (c(hw) - D) / c(h) + gamma(h) p(w | h without its first word), and gamma(h), the
    back-off weight of h, is the share of the discounts in c(h).
    """
    order, size = len(tables), len(symbols)
    arpa = Arpa(symbols, [], [], [])
    words = np.zeros((1, 0), dtype=np.int32)
    lower = np.array([1.0 / (size - 1)])  # uniform over all but <s>
    probs: List[np.ndarray] = []
    gammas: List[np.ndarray] = []
    for k, table in enumerate(tables, 1):
        counted = adjusted_counts(tables, k).astype(np.float64)
        if k == 1:
            counted[table.word == _BOS] = 0.0  # never predicted
        amounts = discounts(counted, k)
        taken = amounts[np.minimum(counted, 3).astype(np.int64)]
        histories = len(words)
        total = np.bincount(table.prefix, weights=counted, minlength=histories)
        gamma = np.bincount(table.prefix, weights=taken, minlength=histories) / np.maximum(total, 1.0)
        prob = (counted - taken) / np.maximum(total, 1.0)[table.prefix]
        prob += gamma[table.prefix] * lower[table.suffix]
        words = np.concatenate([words[table.prefix], table.word[:, None]], axis=1)
        arpa.words.append(words)
        probs.append(prob)
        gammas.append(gamma)
        lower = prob
    for k in range(1, order + 1):
        has_followers = np.zeros(len(probs[k - 1]), dtype=bool)
        if k < order:
            has_followers[tables[k].prefix] = True
        backoff = np.where(has_followers, gammas[k], 1.0) if k < order else np.ones(len(probs[k - 1]))
        arpa.log_probs.append(np.log(probs[k - 1]).astype(np.float32))
        arpa.backoffs.append(np.log(backoff).astype(np.float32))
    _finish_unigrams(arpa, float(gammas[0][0]) / (size - 1))
    return arpa


def _finish_unigrams(arpa: Arpa, unknown: float) -> None:
    """Set ``<s>`` to probability 0, and ``<unk>`` to ``unknown`` unless the text has it."""
    is_bos = arpa.words[0][:, 0] == _BOS
    arpa.log_probs[0][is_bos] = -99.0 * np.log(10.0)
    if not (arpa.words[0] == _UNK).any():
        arpa.words[0] = np.concatenate([np.array([[_UNK]], dtype=np.int32), arpa.words[0]])
        arpa.log_probs[0] = np.concatenate([np.array([np.log(unknown)], dtype=np.float32), arpa.log_probs[0]])
        arpa.backoffs[0] = np.concatenate([np.zeros(1, dtype=np.float32), arpa.backoffs[0]])

"""Word and character error rates: alignment, counts, confidence, and the files that hold them."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple, TypeVar

import numpy as np
from kaldialign import align

T = TypeVar("T")
_EMPTY = "*"  # stands for "no word" in files
NO_WORD = "\0"  # stands for "no word" in alignments, where a real "*" may occur


class Utterance(NamedTuple):
    """One test utterance.

    Attributes:
      cut_id: its id.
      ref: words (or characters) of the reference.
      hyp: words (or characters) of the hypothesis.
      speaker: name of the speaker; "": unknown.
    """

    cut_id: str
    ref: List[str]
    hyp: List[str]
    speaker: str = ""


@dataclass
class ErrorCounts:
    """Errors of a set of utterances, in words.

    Attributes:
      ins, dels, subs: insertions, deletions, substitutions.
      ref_len: words in the references.
      corr: words recognised correctly.
    """

    ins: int = 0
    dels: int = 0
    subs: int = 0
    ref_len: int = 0
    corr: int = 0

    @property
    def errors(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.ins + self.dels + self.subs

    @property
    def wer(self) -> float:
        """Word error rate in percent, see :func:`error_rate`."""
        return error_rate(self.errors, self.ref_len)


@dataclass
class Score:
    """The alignment of all utterances, and counts that follow from it.

    Attributes:
      total: counts over all utterances.
      per_utterance: (errors, reference words) of each utterance, in order of their ids.
      alignments: id and alignment of each utterance, see :func:`align_words`.
      subs: number of substitutions of each pair of words (ref, hyp).
      ins, dels: number of insertions and deletions of each word.
      words: for each word [correct, substituted in ref, substituted in hyp, inserted, deleted].
    """

    total: ErrorCounts = field(default_factory=ErrorCounts)
    per_utterance: List[Tuple[int, int]] = field(default_factory=list)
    alignments: List[Tuple[str, List[Tuple[str, str]]]] = field(default_factory=list)
    subs: "Counter[Tuple[str, str]]" = field(default_factory=Counter)
    ins: "Counter[str]" = field(default_factory=Counter)
    dels: "Counter[str]" = field(default_factory=Counter)
    words: Dict[str, List[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * 5))


def error_rate(errors: int, ref_len: int) -> float:
    """Return errors in percent of ``ref_len``; if that is 0, 0 or (with errors) infinity."""
    if ref_len == 0:
        return float("inf") if errors else 0.0
    return 100.0 * errors / ref_len


def characters(words: Iterable[str]) -> List[str]:
    """Return the characters of ``words`` without spaces, for a character error rate."""
    return [ch for word in words for ch in word]


def score_utterances(utterances: Iterable[Utterance]) -> Score:
    """Align each hypothesis with its reference (least Levenshtein distance) and count errors.

    Args:
      utterances: in any order; ids should be unique. Empty references and hypotheses count like
        others.
    """
    score = Score()
    for utterance in sorted(utterances, key=lambda u: u.cut_id):
        pairs = align_words(utterance.ref, utterance.hyp)
        errors = sum(_count(score, r, h) for r, h in pairs)
        score.alignments.append((utterance.cut_id, pairs))
        score.per_utterance.append((errors, len(utterance.ref)))
        score.total.ref_len += len(utterance.ref)
    return score


def count_errors(pairs: Sequence[Tuple[str, str]]) -> ErrorCounts:
    """Count the errors of an alignment, see :func:`align_words`."""
    score = Score()
    for ref, hyp in pairs:
        _count(score, ref, hyp)
        score.total.ref_len += ref != NO_WORD
    return score.total


def align_words(ref: Sequence[str], hyp: Sequence[str]) -> List[Tuple[str, str]]:
    """Return pairs (ref, hyp) of words with the fewest errors; :data:`NO_WORD` for a gap."""
    return align(list(ref), list(hyp), NO_WORD)


def _count(score: Score, ref: str, hyp: str) -> int:
    """Count one aligned pair; return 1 if it is an error."""
    total, words = score.total, score.words
    if ref == NO_WORD:
        total.ins += 1
        score.ins[hyp] += 1
        words[hyp][3] += 1
    elif hyp == NO_WORD:
        total.dels += 1
        score.dels[ref] += 1
        words[ref][4] += 1
    elif ref != hyp:
        total.subs += 1
        score.subs[ref, hyp] += 1
        words[ref][1] += 1
        words[hyp][2] += 1
    else:
        total.corr += 1
        words[ref][0] += 1
        return 0
    return 1


def bootstrap_interval(
    per_utterance: Sequence[Tuple[int, int]], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Tuple[float, float]:
    """Return a confidence interval of the error rate, by resampling utterances with replacement.

    Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    ICASSP 2004.

    Args:
      per_utterance: (errors, reference words) of each utterance.
      level: probability that the interval covers.
      resamples: number of resampled test sets.
      seed: seed of the resampling.

    Returns:
      Lower and upper end in percent; (0, 0) without utterances.
    """
    if not per_utterance:
        return 0.0, 0.0
    rates = _resampled_rates([per_utterance], resamples, seed)[0]
    tail = 50.0 * (1 - level)
    # One cannot interpolate between a number and infinity.
    finite = bool(np.isfinite(rates).all())
    low, high = np.percentile(rates, [tail, 100 - tail], method="linear" if finite else "nearest")
    return float(low), float(high)


def probability_of_improvement(
    old: Sequence[Tuple[int, int]], new: Sequence[Tuple[int, int]], resamples: int = 2000, seed: int = 0
) -> float:
    """Return the probability that the new system's error rate is below the old one's.

    Both are resampled together (Bisani and Ney 2004); a tie counts half.

    Args:
      old, new: (errors, reference words) of the same utterances in the same order.
      resamples, seed: see :func:`bootstrap_interval`.
    """
    if len(old) != len(new):
        raise ValueError(f"{len(old)} and {len(new)} utterances cannot be compared")
    if not old:
        return 0.5
    first, second = _resampled_rates([old, new], resamples, seed)
    return float((second < first).mean() + 0.5 * (second == first).mean())


def difference_interval(
    old: Sequence[Tuple[int, int]],
    new: Sequence[Tuple[int, int]],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Tuple[float, float]:
    """Return a confidence interval of the new system's error rate minus the old one's, in percent.

    Both are resampled together.

    Args:
      old, new: (errors, reference words) of the same utterances in the same order.
      level, resamples, seed: see :func:`bootstrap_interval`.
    """
    if len(old) != len(new):
        raise ValueError(f"{len(old)} and {len(new)} utterances cannot be compared")
    if not old:
        return 0.0, 0.0
    first, second = _resampled_rates([old, new], resamples, seed)
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        return 0.0, 0.0
    tail = 50.0 * (1 - level)
    low, high = np.percentile((second - first)[known], [tail, 100 - tail])
    return float(low), float(high)


def _resampled_rates(systems: Sequence[Sequence[Tuple[int, int]]], resamples: int, seed: int) -> np.ndarray:
    """Return error rates (S, R) of S systems on R resampled test sets, the same for all."""
    data = np.asarray(systems, dtype=np.int64)  # (S, utterances, 2)
    rng = np.random.default_rng(seed)
    rates = np.empty((len(data), resamples))
    for i in range(resamples):
        drawn = rng.integers(0, data.shape[1], data.shape[1])
        for row, (errors, ref_len) in enumerate(data[:, drawn].sum(axis=1)):
            rates[row, i] = error_rate(int(errors), int(ref_len))
    return rates


def summary_line(name: str, counts: ErrorCounts) -> str:
    """Return a line like ``[name] %WER 2.23% [1172 / 52576, 130 ins, 95 del, 947 sub ]``."""
    c = counts
    return f"[{name}] %WER {c.wer:.2f}% [{c.errors} / {c.ref_len}, {c.ins} ins, {c.dels} del, {c.subs} sub ]"


def format_recogs(utterances: Iterable[Utterance]) -> str:
    """Return the text of a ``recogs-*.txt``: two lines per utterance, sorted by id."""
    ordered = sorted(utterances, key=lambda u: u.cut_id)
    return "".join(f"{u.cut_id}:\tref={list(u.ref)}\n{u.cut_id}:\thyp={list(u.hyp)}\n" for u in ordered)


def format_errs(score: Score) -> str:
    """Return the text of an ``errs-*.txt``: totals, alignments, and counts by pair and by word.

    It is in the format of icefall's files, the most frequent first.
    """
    c = score.total
    lines = [
        f"%WER = {c.wer:.2f}",
        f"Errors: {c.ins} insertions, {c.dels} deletions, {c.subs} substitutions, "
        f"over {c.ref_len} reference words ({c.corr} correct)",
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, "
        "INSERTIONS:, PER-WORD STATS:",
        "",
        "PER-UTT DETAILS: corr or (ref->hyp)  ",
        *(f"{cut_id}:\t" + " ".join(_merged(pairs)) for cut_id, pairs in score.alignments),
        "",
        "SUBSTITUTIONS: count ref -> hyp",
        *(f"{n}   {ref} -> {hyp}" for n, (ref, hyp) in _descending(score.subs)),
        "",
        "DELETIONS: count ref",
        *(f"{n}   {word}" for n, word in _descending(score.dels)),
        "",
        "INSERTIONS: count hyp",
        *(f"{n}   {word}" for n, word in _descending(score.ins)),
        "",
        "PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp",
    ]
    by_errors = sorted(((sum(v[1:]), w, v) for w, v in score.words.items()), reverse=True)
    for errors, word, (corr, ref_sub, hyp_sub, ins, dels) in by_errors:
        lines.append(f"{word}   {corr} {errors} {corr + ref_sub + dels} {corr + hyp_sub + ins}")
    return "\n".join(lines) + "\n"


def format_wer_summary(results: Dict[str, float]) -> str:
    """Return the text of a ``wer-summary-*.txt``: a line for each setting, best first."""
    rows = sorted(results.items(), key=lambda item: item[1])
    return "settings\tWER\n" + "".join(f"{key}\t{round(value, 2)}\n" for key, value in rows)


def _descending(counts: "Counter[T]") -> List[Tuple[int, T]]:
    return sorted(((n, item) for item, n in counts.items()), reverse=True)


def _merged(pairs: Sequence[Tuple[str, str]]) -> List[str]:
    """Return correct words unchanged, each run of adjacent errors as one ``(ref->hyp)``."""
    out: List[str] = []
    refs: List[str] = []
    hyps: List[str] = []

    def flush() -> None:
        if refs or hyps:
            out.append(f"({' '.join(refs) or _EMPTY}->{' '.join(hyps) or _EMPTY})")
            refs.clear()
            hyps.clear()

    for ref, hyp in pairs:
        if ref == hyp:
            flush()
            out.append(ref)
            continue
        refs += [ref] * (ref != NO_WORD)
        hyps += [hyp] * (hyp != NO_WORD)
    flush()
    return out

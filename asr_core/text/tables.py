"""Tables of a scored test set: by speaker, by character, by sentence, and frequent errors."""

import dataclasses
from collections import defaultdict
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

from asr_core.text.scoring import (
    ErrorCounts,
    Score,
    Utterance,
    bootstrap_interval,
    characters,
    count_errors,
    score_utterances,
)

UNKNOWN_SPEAKER = "(unknown)"
Row = Tuple[object, ...]


class SpeakerRow(NamedTuple):
    """Errors of one speaker."""

    speaker: str
    utterances: int
    sentences_right: int
    counts: ErrorCounts


def by_character(utterances: Sequence[Utterance]) -> Score:
    """Return the score in characters, without the spaces between words."""
    return score_utterances(u._replace(ref=characters(u.ref), hyp=characters(u.hyp)) for u in utterances)


def sentence_accuracy(score: Score) -> float:
    """Return the share of utterances without an error, in percent; 0 if there are no utterances."""
    if not score.per_utterance:
        return 0.0
    return 100.0 * sum(errors == 0 for errors, _ in score.per_utterance) / len(score.per_utterance)


def by_speaker(utterances: Sequence[Utterance], score: Score) -> List[SpeakerRow]:
    """Return the errors of each speaker, the highest error rate first.

    Args:
      utterances: those of ``score``, in any order.
      score: their score, see :func:`~asr_core.text.scoring.score_utterances`.
    """
    speaker_of = {u.cut_id: u.speaker or UNKNOWN_SPEAKER for u in utterances}
    groups: Dict[str, List[ErrorCounts]] = defaultdict(list)
    for cut_id, pairs in score.alignments:
        groups[speaker_of[cut_id]].append(count_errors(pairs))
    rows = []
    for speaker, each in groups.items():
        right = sum(c.errors == 0 for c in each)
        names = [f.name for f in dataclasses.fields(ErrorCounts)]
        total = ErrorCounts(**{name: sum(getattr(c, name) for c in each) for name in names})
        rows.append(SpeakerRow(speaker, len(each), right, total))
    return sorted(rows, key=lambda row: (-row.counts.wer, row.speaker))


def most_frequent(score: Score, most: int = 30) -> Dict[str, List[Tuple[int, str]]]:
    """Return the most frequent errors of each kind, each as (count, words)."""
    subs = {f"{ref} -> {hyp}": n for (ref, hyp), n in score.subs.items()}
    kinds: Dict[str, Mapping[str, int]] = {
        "substitutions": subs,
        "deletions": score.dels,
        "insertions": score.ins,
    }
    return {
        kind: sorted(((n, words) for words, n in counts.items()), key=lambda x: (-x[0], x[1]))[:most]
        for kind, counts in kinds.items()
    }


def format_columns(rows: Sequence[Row]) -> List[str]:
    """Return rows as lines of aligned columns, the first to the left; the first row is a header."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def rate_columns(score: Score) -> Tuple[str, str]:
    """Return an error rate in percent and its 95 % bootstrap interval, as a table shows them."""
    low, high = bootstrap_interval(score.per_utterance)
    return f"{score.total.wer:.2f}", f"{low:.2f} .. {high:.2f}"


def rate_header(cer: bool = False) -> Row:
    """Return the header of a table of :func:`rate_row`."""
    header = ("test set", "utts", "words", "WER %", "95 % interval", "sub", "del", "ins")
    return (*header, "CER %", "right %") if cer else header


def rate_row(name: str, utterances: Sequence[Utterance], score: Score, cer: bool = False) -> Row:
    """Return the row of a test set: counts, error rate and its interval.

    With ``cer``, the character error rate and the share of utterances without an error follow.
    """
    c = score.total
    more = (f"{by_character(utterances).total.wer:.2f}", f"{sentence_accuracy(score):.2f}") if cer else ()
    return (name, len(score.per_utterance), c.ref_len, *rate_columns(score), c.subs, c.dels, c.ins, *more)


def format_scores(utterances: Sequence[Utterance], score: Score, unit: str = "word") -> str:
    """Return the text of a ``scores-*.txt``: rates, errors by speaker, frequent errors.

    Args:
      utterances, score: a test set.
      unit: ``word``, or ``character`` if the utterances consist of characters.
    """
    c = score.total
    rate, interval = rate_columns(score)
    lines = [
        f"{unit} error rate: {rate} % (95 % interval {interval}): {c.errors} of {c.ref_len}, "
        f"{c.subs} sub, {c.dels} del, {c.ins} ins"
    ]
    if unit != "character":
        cer = by_character(utterances)
        rate, interval = rate_columns(cer)
        counts = f"{cer.total.errors} of {cer.total.ref_len}"
        lines.append(f"character error rate: {rate} % (95 % interval {interval}): {counts}")
    right = sum(errors == 0 for errors, _ in score.per_utterance)
    lines.append(f"sentences right: {sentence_accuracy(score):.2f} %: {right} of {len(score.per_utterance)}")
    lines += ["", "BY SPEAKER", *format_columns(speaker_table(utterances, score))]
    for kind, entries in most_frequent(score).items():
        lines += ["", f"MOST FREQUENT {kind.upper()}", *(f"{n}   {words}" for n, words in entries)]
    return "\n".join(lines) + "\n"


def speaker_table(utterances: Sequence[Utterance], score: Score) -> List[Row]:
    """Return the rows of :func:`by_speaker` as a table shows them, header first."""
    rows: List[Row] = [("speaker", "utts", "right", "words", "errors", "rate %", "sub", "del", "ins")]
    for speaker, count, right, c in by_speaker(utterances, score):
        rows.append((speaker, count, right, c.ref_len, c.errors, f"{c.wer:.2f}", c.subs, c.dels, c.ins))
    return rows

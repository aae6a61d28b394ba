"""What a scored test set tells in tables: by speaker, by character, by sentence, and which words are confused."""

from collections import defaultdict
from typing import Dict, List, NamedTuple, Sequence, Tuple

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
    """The score in characters, without the spaces between words."""
    return score_utterances(u._replace(ref=characters(u.ref), hyp=characters(u.hyp)) for u in utterances)


def sentence_accuracy(score: Score) -> float:
    """Utterances without an error, in percent; 0 where there are none."""
    if not score.per_utterance:
        return 0.0
    return 100.0 * sum(errors == 0 for errors, _ in score.per_utterance) / len(score.per_utterance)


def by_speaker(utterances: Sequence[Utterance], score: Score) -> List[SpeakerRow]:
    """Errors of each speaker, the most errors per word first.

    Args:
      utterances: those of ``score``, in any order.
      score: of :func:`~asr_core.text.scoring.score_utterances`.
    """
    speaker_of = {u.cut_id: u.speaker or UNKNOWN_SPEAKER for u in utterances}
    groups: Dict[str, List[ErrorCounts]] = defaultdict(list)
    for cut_id, pairs in score.details:
        groups[speaker_of[cut_id]].append(count_errors(pairs))
    rows = []
    for speaker, each in groups.items():
        right = sum(c.errors == 0 for c in each)
        total = ErrorCounts(
            *(sum(getattr(c, name) for c in each) for name in ("ins", "dels", "subs", "ref_len", "corr"))
        )
        rows.append(SpeakerRow(speaker, len(each), right, total))
    return sorted(rows, key=lambda row: (-row.counts.wer, row.speaker))


def most_frequent(score: Score, most: int = 30) -> Dict[str, List[Tuple[int, str]]]:
    """The most frequent substitutions, deletions and insertions: (how often, what), by kind."""
    subs = {f"{ref} -> {hyp}": n for (ref, hyp), n in score.subs.items()}
    kinds = {"substitutions": subs, "deletions": score.dels, "insertions": score.ins}
    return {
        kind: sorted(((n, what) for what, n in counts.items()), key=lambda x: (-x[0], x[1]))[:most]
        for kind, counts in kinds.items()
    }


def format_columns(rows: Sequence[Row]) -> List[str]:
    """Rows as lines of aligned columns, the first to the left; a rule below the first row, the header."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def rate_columns(score: Score) -> Tuple[str, str]:
    """An error rate in percent and its 95 % bootstrap interval, as a table shows them."""
    low, high = bootstrap_interval(score.per_utterance)
    return f"{score.total.wer:.2f}", f"{low:.2f} .. {high:.2f}"


def rate_header(cer: bool = False) -> Row:
    """The header of a table of :func:`rate_row`."""
    return (
        "test set",
        "utts",
        "words",
        "WER %",
        "95 % interval",
        "sub",
        "del",
        "ins",
        *(("CER %", "right %") if cer else ()),
    )


def rate_row(name: str, utterances: Sequence[Utterance], score: Score, cer: bool = False) -> Row:
    """A test set's row: counts, rate and interval; with ``cer`` the character error rate and the utterances without an error, too."""
    c = score.total
    more = (f"{by_character(utterances).total.wer:.2f}", f"{sentence_accuracy(score):.2f}") if cer else ()
    return (name, len(score.per_utterance), c.ref_len, *rate_columns(score), c.subs, c.dels, c.ins, *more)


def format_scores(utterances: Sequence[Utterance], score: Score, unit: str = "word") -> str:
    """The text of a ``scores-*.txt``: rates with intervals, errors by speaker, and the most frequent confusions.

    Args:
      utterances, score: a test set.
      unit: ``word``, or ``character`` where these are what the utterances consist of.
    """
    c = score.total
    rate, interval = rate_columns(score)
    lines = [
        f"{unit} error rate: {rate} % (95 % interval {interval}): {c.errors} of {c.ref_len}, {c.subs} sub, {c.dels} del, {c.ins} ins"
    ]
    if unit != "character":
        cer = by_character(utterances)
        rate, interval = rate_columns(cer)
        lines.append(
            f"character error rate: {rate} % (95 % interval {interval}): {cer.total.errors} of {cer.total.ref_len}"
        )
    right = sum(errors == 0 for errors, _ in score.per_utterance)
    lines.append(f"sentences right: {sentence_accuracy(score):.2f} %: {right} of {len(score.per_utterance)}")
    lines += ["", "BY SPEAKER", *format_columns(speaker_table(utterances, score))]
    for kind, entries in most_frequent(score).items():
        lines += ["", f"MOST FREQUENT {kind.upper()}", *(f"{n}   {what}" for n, what in entries)]
    return "\n".join(lines) + "\n"


def speaker_table(utterances: Sequence[Utterance], score: Score) -> List[Row]:
    """The rows of :func:`by_speaker` as a table shows them, header first."""
    rows: List[Row] = [("speaker", "utts", "right", "words", "errors", "rate %", "sub", "del", "ins")]
    for speaker, count, right, c in by_speaker(utterances, score):
        rows.append((speaker, count, right, c.ref_len, c.errors, f"{c.wer:.2f}", c.subs, c.dels, c.ins))
    return rows

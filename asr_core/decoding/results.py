"""Names and contents of the result files, and the table at the end of decoding."""

import logging
from typing import Dict, List, NamedTuple

from asr_core.decoding.naming import ResultFiles
from asr_core.text.scoring import (
    Score,
    Utterance,
    bootstrap_interval,
    format_errs,
    format_recogs,
    format_wer_summary,
    score_utterances,
    summary_line,
)
from asr_core.utils.files import write_text_atomic


class SetResult(NamedTuple):
    """What decoding a test set gave.

    Attributes:
      name: of the test set.
      utterances: references and hypotheses in words, for each result by its name ("" where there is one).
      audio_seconds: duration of the test set.
      compute_seconds: time spent in encoder and search.
    """

    name: str
    utterances: Dict[str, List[Utterance]]
    audio_seconds: float
    compute_seconds: float


def write_recogs(result: SetResult, files: ResultFiles) -> None:
    """Write references and hypotheses of a test set."""
    for key, utterances in result.utterances.items():
        path = files.path(files.recogs, result.name, key)
        write_text_atomic(path, format_recogs(utterances))
    logging.info("transcripts are in %s", path if len(result.utterances) == 1 else path.parent)


def write_scores(result: SetResult, files: ResultFiles) -> Dict[str, Score]:
    """Score the results of a test set, write their errors and a summary, and return the scores, the best first."""
    scores = {key: score_utterances(utterances) for key, utterances in result.utterances.items()}
    scores = dict(sorted(scores.items(), key=lambda item: item[1].total.wer))
    for key, score in scores.items():
        path = files.path(files.errs, result.name, key)
        write_text_atomic(path, format_errs(score))
    summary = {files.full_key(key): score.total.wer for key, score in scores.items()}
    write_text_atomic(files.path(files.summary, result.name, ""), format_wer_summary(summary))
    best, score = next(iter(scores.items()))
    logging.info("%s", summary_line(f"{result.name}-{files.full_key(best)}", score.total))
    logging.info("errors are in %s", path if len(scores) == 1 else path.parent)
    return scores


def format_table(results: List[SetResult], scores: List[Dict[str, Score]], title: str) -> str:
    """Word error rates of all test sets with 95 % bootstrap intervals, kinds of errors, and real-time factors.

    Of several results of a set it shows the best, and its name.
    """
    header = ("test set", "utts", "words", "WER %", "95 % interval", "sub", "del", "ins", "RTF")
    rows: List[tuple] = [header]
    best_keys = []
    for result, by_key in zip(results, scores):
        key, score = next(iter(by_key.items()))
        best_keys += [f"{result.name}: the best of {len(by_key)} results is {key}"] if key else []
        low, high = bootstrap_interval(score.per_utterance)
        c = score.total
        rtf = result.compute_seconds / result.audio_seconds if result.audio_seconds else 0.0
        interval = f"{low:.2f} .. {high:.2f}"
        rows.append((result.name, len(score.per_utterance), c.ref_len, f"{c.wer:.2f}", interval, c.subs, c.dels, c.ins, f"{rtf:.4f}"))
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(header))]
    lines = ["  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:], *best_keys])

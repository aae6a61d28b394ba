"""Names and contents of the result files, and the table at the end of decoding."""

import logging
from typing import Dict, List, NamedTuple

from asr_core.decoding.output.file_names import ResultFiles
from asr_core.text.scoring import (
    Score,
    Utterance,
    format_errs,
    format_recogs,
    format_wer_summary,
    score_utterances,
    summary_line,
)
from asr_core.text.tables import format_columns, format_scores, rate_header, rate_row
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


def write_scores(result: SetResult, files: ResultFiles, unit: str = "word") -> Dict[str, Score]:
    """Score the results of a test set, write their errors and a summary, and of the best more; return the scores, the best first.

    ``unit`` says what the utterances consist of, ``word`` or ``character``.
    """
    scores = {key: score_utterances(utterances) for key, utterances in result.utterances.items()}
    scores = dict(sorted(scores.items(), key=lambda item: item[1].total.wer))
    for key, score in scores.items():
        path = files.path(files.errs, result.name, key)
        write_text_atomic(path, format_errs(score))
    summary = {files.full_key(key): score.total.wer for key, score in scores.items()}
    write_text_atomic(files.path(files.summary, result.name, ""), format_wer_summary(summary))
    best, score = next(iter(scores.items()))
    logging.info("%s", summary_line(f"{result.name}-{files.full_key(best)}", score.total))
    path = files.path(files.beside("scores", ".txt"), result.name, best)
    write_text_atomic(path, format_scores(result.utterances[best], score, unit))
    logging.info("errors are in %s", files.path(files.errs, result.name, best))
    return scores


def format_table(
    results: List[SetResult], scores: List[Dict[str, Score]], title: str, cer: bool = False
) -> str:
    """Word error rates of all test sets with 95 % bootstrap intervals, kinds of errors, and real-time factors.

    Of several results of a set it shows the best, and its name. With ``cer`` also character error rates and right sentences.
    """
    rows: List[tuple] = [(*rate_header(cer), "RTF")]
    best_keys = []
    for result, by_key in zip(results, scores):
        key, score = next(iter(by_key.items()))
        best_keys += [f"{result.name}: the best of {len(by_key)} results is {key}"] if key else []
        rtf = result.compute_seconds / result.audio_seconds if result.audio_seconds else 0.0
        rows.append((*rate_row(result.name, result.utterances[key], score, cer), f"{rtf:.4f}"))
    return "\n".join([title, *format_columns(rows), *best_keys])

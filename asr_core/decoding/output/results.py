"""Contents of the result files, and the table at the end of decoding."""

import logging
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence

from asr_core.decoding.method import BEST
from asr_core.decoding.output.file_names import ResultFiles
from asr_core.decoding.output.speed import Speed
from asr_core.text.scoring import (
    Score,
    Utterance,
    format_errs,
    format_recogs,
    format_wer_summary,
    score_utterances,
    summary_line,
)
from asr_core.text.tables import Row, format_columns, format_scores, rate_header, rate_row
from asr_core.utils.files import write_text_atomic


@dataclass(frozen=True)
class SetResult:
    """The results of decoding a test set.

    Attributes:
      name: name of the test set.
      utterances: references and hypotheses in words, for each result by its name.
      speed: of decoding it.
      left_out: number of cuts that the rates do not count, because they could not be read or make
        no sense.
    """

    name: str
    utterances: Dict[str, List[Utterance]]
    speed: Speed
    left_out: int = 0


def write_recogs(result: SetResult, files: ResultFiles) -> None:
    """Write references and hypotheses of a test set."""
    for name, utterances in result.utterances.items():
        path = files.path(files.recogs, result.name, name)
        write_text_atomic(path, format_recogs(utterances))
    logging.info("transcripts are in %s", path if len(result.utterances) == 1 else path.parent)


def write_scores(result: SetResult, files: ResultFiles, unit: str = "word") -> Dict[str, Score]:
    """Score a test set; write the errors of each result, a summary, and more of the best result.

    Args:
      result: result of decoding the test set.
      files: names of result files.
      unit: ``word`` or ``character``, of which the utterances consist.

    Returns:
      The scores by name of the result, the best first.
    """
    scores = {name: score_utterances(utterances) for name, utterances in result.utterances.items()}
    scores = dict(sorted(scores.items(), key=lambda item: item[1].total.wer))
    for name, score in scores.items():
        write_text_atomic(files.path(files.errs, result.name, name), format_errs(score))
    summary = {files.full_key(name): score.total.wer for name, score in scores.items()}
    write_text_atomic(files.path(files.summary, result.name), format_wer_summary(summary))
    best, score = next(iter(scores.items()))
    logging.info("%s", summary_line(f"{result.name}-{files.full_key(best)}", score.total))
    path = files.path(files.beside("scores", ".txt"), result.name, best)
    write_text_atomic(path, format_scores(result.utterances[best], score, unit))
    logging.info("errors are in %s", files.path(files.errs, result.name, best))
    return scores


def format_table(
    results: Sequence[SetResult], scores: Sequence[Mapping[str, Score]], title: str, cer: bool = False
) -> str:
    """Format the table of error rates of all test sets.

    It has 95 % bootstrap intervals, kinds of errors, the real-time factor of encoder and search and
    its inverse, seconds of audio per second in all, and cuts left out. Of several results of a test
    set it shows the best, and its name.

    Args:
      results: results of the test sets.
      scores: scores of each test set, by name of the result, the best first.
      title: line above the table.
      cer: whether character error rates and the share of right sentences are shown, too.
    """
    rows: List[Row] = [(*rate_header(cer), "RTF", "RTFx", "in all", "left out")]
    best_names = []
    for result, by_name in zip(results, scores):
        best, score = next(iter(by_name.items()))
        if best != BEST:
            best_names.append(f"{result.name}: the best of {len(by_name)} results is {best}")
        rates = rate_row(result.name, result.utterances[best], score, cer)
        speed = result.speed
        columns = (f"{speed.rtf:.4f}", f"{speed.rtfx:.1f}", f"{speed.total_rtfx:.1f}")
        rows.append((*rates, *columns, result.left_out))
    return "\n".join([title, *format_columns(rows), *best_names])

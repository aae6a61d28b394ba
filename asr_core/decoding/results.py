"""Names and contents of the result files, and the table at the end of decoding."""

import logging
from pathlib import Path
from typing import Any, List, NamedTuple

from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import get_method
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
      utterances: references and hypotheses in words.
      audio_seconds: duration of the test set.
      compute_seconds: time spent in encoder and search.
    """

    name: str
    utterances: List[Utterance]
    audio_seconds: float
    compute_seconds: float


class ResultFiles(NamedTuple):
    """Where the results of a test set go; each name has the place ``{set}``."""

    folder: Path
    recogs: str
    errs: str
    summary: str
    key: str


def checkpoint_part(params: Any) -> str:
    """``epoch-E`` or ``iter-I``, with which result files begin."""
    return f"iter-{params['iter']}" if params["iter"] > 0 else f"epoch-{params['epoch']}"


def _chunk_part(causal: bool, chunk_size: int, left_context_frames: int) -> str:
    return f"_chunk-{chunk_size}_left-context-{left_context_frames}" if causal else ""


def _adjustments(opts: SearchOptions) -> str:
    penalty = f"_blank-penalty-{opts.blank_penalty}" if opts.blank_penalty else ""
    return penalty + (f"_temperature-{opts.temperature}" if opts.temperature != 1 else "")


def offline_files(params: Any, opts: SearchOptions, context_size: int, causal: bool, chunk_size: int, left: int) -> ResultFiles:
    """Names of what decode.py writes, below ``<exp_dir>/<decoding method>``."""
    method = get_method(opts)
    suffix = f"{checkpoint_part(params)}_avg-{params['avg']}" + _chunk_part(causal, chunk_size, left)
    suffix += method.name_part(opts, context_size) + _adjustments(opts)
    suffix += "_use-averaged-model" if params["use_averaged_model"] else ""
    return ResultFiles(
        folder=Path(params["exp_dir"]) / opts.decoding_method,
        recogs=f"recogs-{{set}}-{suffix}.txt",
        errs=f"errs-{{set}}-{suffix}.txt",
        summary=f"wer-summary-{{set}}-{suffix}.txt",
        key=method.key(opts),
    )


def streaming_files(params: Any, opts: SearchOptions, chunk_size: int, left: int) -> ResultFiles:
    """Names of what streaming_decode.py writes, below ``<exp_dir>/streaming/<decoding method>``."""
    key = get_method(opts).streaming_key(opts)
    suffix = f"{checkpoint_part(params)}_avg-{params['avg']}" + _chunk_part(True, chunk_size, left) + _adjustments(opts)
    suffix += "-use-averaged-model" if params["use_averaged_model"] else ""
    suffix += f"-{params['label']}" if params["label"] else ""
    return ResultFiles(
        folder=Path(params["exp_dir"]) / "streaming" / opts.decoding_method,
        recogs=f"recogs-{{set}}_{key}_{suffix}.txt",
        errs=f"errs-{{set}}_{key}_{suffix}.txt",
        summary=f"wer-summary_{{set}}_{key}_{suffix}.txt",
        key=key,
    )


def write_recogs(result: SetResult, files: ResultFiles) -> None:
    """Write references and hypotheses of a test set."""
    path = files.folder / files.recogs.format(set=result.name)
    write_text_atomic(path, format_recogs(result.utterances))
    logging.info("transcripts are in %s", path)


def write_scores(result: SetResult, files: ResultFiles) -> Score:
    """Score a test set, write its errors and its summary, and return the score."""
    score = score_utterances(result.utterances)
    path = files.folder / files.errs.format(set=result.name)
    write_text_atomic(path, format_errs(score))
    write_text_atomic(files.folder / files.summary.format(set=result.name), format_wer_summary({files.key: score.total.wer}))
    logging.info("%s", summary_line(f"{result.name}-{files.key}", score.total))
    logging.info("errors are in %s", path)
    return score


def format_table(results: List[SetResult], scores: List[Score], title: str) -> str:
    """Word error rates of all test sets with 95 % bootstrap intervals, kinds of errors, and real-time factors."""
    header = ("test set", "utts", "words", "WER %", "95 % interval", "sub", "del", "ins", "RTF")
    rows: List[tuple] = [header]
    for result, score in zip(results, scores):
        low, high = bootstrap_interval(score.per_utterance)
        c = score.total
        rtf = result.compute_seconds / result.audio_seconds if result.audio_seconds else 0.0
        interval = f"{low:.2f} .. {high:.2f}"
        rows.append((result.name, len(result.utterances), c.ref_len, f"{c.wer:.2f}", interval, c.subs, c.dels, c.ins, f"{rtf:.4f}"))
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(header))]
    lines = ["  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])

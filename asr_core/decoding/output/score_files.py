"""Scores of files of hypotheses against references, and comparisons of systems."""

from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

from asr_core.decoding.output.options import ScoreFilesOptions
from asr_core.text.normalize import check_normalization
from asr_core.text.scoring import (
    Score,
    Utterance,
    difference_interval,
    format_errs,
    probability_of_improvement,
    score_utterances,
)
from asr_core.text.tables import format_columns, format_scores, rate_header, rate_row
from asr_core.text.transcripts import Transcripts, pair_of, read_transcripts, utterances_of
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic


def score_files(paths: Sequence[str], opts: ScoreFilesOptions) -> None:
    """Print the error rates of files of hypotheses, and how each compares with the first.

    Raises:
      UserError: a file is missing or damaged, or they are not of the same test set.
    """
    check_normalization(opts.normalize)
    systems = _systems(paths, opts)
    scores = {name: score_utterances(utterances) for name, utterances in systems.items()}
    unit = "character" if opts.characters else "word"
    rows = [rate_header(opts.cer)]
    rows += [rate_row(name, systems[name], scored, opts.cer) for name, scored in scores.items()]
    print("\n".join([f"{unit} error rates", *format_columns(rows), *_comparisons(scores, opts.level)]))
    first = next(iter(systems))
    if opts.errs:
        write_text_atomic(opts.errs, format_errs(scores[first]))
    if opts.scores:
        write_text_atomic(opts.scores, format_scores(systems[first], scores[first], unit))


def _systems(paths: Sequence[str], opts: ScoreFilesOptions) -> Dict[str, List[Utterance]]:
    """Return the utterances of each system, by the name of its file."""
    files = [read_transcripts(path) for path in paths]
    refs, speakers = _references(opts.ref, files)
    if opts.speakers:
        speakers = read_transcripts(opts.speakers).texts
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else list(paths)
    if len(set(names)) < len(names):
        raise UserError("--hyp: a file is given twice")
    return {
        name: utterances_of(
            refs, file.texts, speakers, opts.normalize, opts.characters, opts.missing_as_empty
        )
        for name, file in zip(names, files)
    }


def _references(path: str, files: Sequence[Transcripts]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return references and speakers by utterance id, of a file or those of the hypotheses."""
    if not path:
        refs, speakers = pair_of(files)
        if not refs:
            raise UserError("the hypotheses' files have no references: give some with --ref")
        return refs, speakers
    given = read_transcripts(path)
    _, speakers = pair_of([given, *files])
    return given.refs or given.texts, speakers


def _comparisons(scores: Mapping[str, Score], level: float) -> List[str]:
    """Return a line for each system after the first that compares it with the first."""
    (first, base), *others = scores.items()
    lines = []
    for name, other in others:
        low, high = difference_interval(base.per_utterance, other.per_utterance, level)
        better = probability_of_improvement(base.per_utterance, other.per_utterance)
        change = other.total.wer - base.total.wer
        interval = f"{100 * level:g} % interval {low:+.2f} .. {high:+.2f}"
        lines.append(
            f"{name} against {first}: {change:+.2f} ({interval}), better with probability {better:.3f}"
        )
    return lines

"""Options of scoring and of the records besides the transcripts.

The module is light, so that ``--help`` needs no torch.
"""

from dataclasses import dataclass
from typing import Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import OnlyWith
from asr_core.utils.options import option


@dataclass(frozen=True)
class ScoreOptions:
    """Scoring: how words are compared."""

    normalize: str = option(
        "",
        "how references and hypotheses are changed before they are compared, e.g. no-punct+lower; "
        "left out: as the corpus says",
    )
    cer: bool = option(
        False, "the table also has character error rates and the share of sentences without errors"
    )


@dataclass(frozen=True)
class ConfidenceOptions:
    """Confidences of words."""

    write_confidence: bool = option(
        False, "write each word's confidence into timestamps-*.jsonl, and with --write-nbest there, too"
    )
    confidence_measure: str = option(
        "prob",
        "of a token: its probability, or the distance of the entropy from its maximum",
        choices=("prob", "gibbs", "tsallis", "renyi"),
        only_with=OnlyWith("write_confidence"),
    )
    confidence_alpha: float = option(
        1 / 3,
        "exponent of tsallis and renyi",
        above=0,
        below=1,
        only_with=OnlyWith("confidence_measure", ("tsallis", "renyi")),
    )
    confidence_aggregation: str = option(
        "min",
        "of a word, from its tokens",
        choices=("min", "mean", "prod"),
        only_with=OnlyWith("write_confidence"),
    )


@dataclass(frozen=True)
class EmbedOptions:
    """Audio of reports."""

    embed_audio: bool = option(False, "the report holds the audio itself, instead of links to it")
    embed_limit: float = option(
        50.0,
        "megabytes of audio that the report may hold; the utterances with the most errors go first",
        above=0,
        finite=False,
        only_with=OnlyWith("embed_audio"),
    )


@dataclass(frozen=True)
class RecordOptions(EmbedOptions, ConfidenceOptions):
    """Records: what is written besides the transcripts."""

    write_timestamps: bool = option(False, "write the times of each token and word into timestamps-*.jsonl")
    write_nbest: int = option(
        0,
        "write this many best hypotheses of each utterance into nbest-*.jsonl; 0 for none",
        at_least=0,
        at_most=10_000,
    )
    html_report: bool = option(
        False, "write report-*.html: alignments, errors by word and speaker, audio; opens without a network"
    )


def check_record_options(opts: RecordOptions, skip_scoring: bool) -> None:
    """Refuse options that contradict each other.

    Raises:
      UserError: naming them.
    """
    if opts.embed_audio and not opts.html_report:
        raise UserError("--embed-audio 1 is about the report: give --html-report 1, too")
    if opts.html_report and skip_scoring:
        raise UserError("--html-report shows scores: leave out --skip-scoring")


@dataclass(frozen=True)
class ScoreFilesOptions:
    """Scoring: files to compare, and output."""

    ref: str = option(
        "", "references; left out: those of the hypotheses' files, e.g. recogs-*.txt", path=PathKind.FILE
    )
    normalize: str = option(
        "none", "how both are changed before they are compared, e.g. no-tags+no-punct+lower"
    )
    characters: bool = option(False, "count characters instead of words")
    cer: bool = option(
        False, "the table also has character error rates and the share of sentences without errors"
    )
    speakers: str = option("", "who spoke: a file of 'utterance speaker' lines", path=PathKind.FILE)
    missing_as_empty: bool = option(False, "utterances without hypothesis count as recognised as nothing")
    errs: str = option(
        "", "write the first system's alignments and counts by word there", path=PathKind.OUTPUT
    )
    scores: str = option(
        "",
        "write the first system's rates by speaker and most frequent confusions there",
        path=PathKind.OUTPUT,
    )
    level: float = option(0.95, "of the interval of differences between systems", above=0, below=1)


@dataclass(frozen=True)
class ReportOptions(EmbedOptions):
    """Report: its content and file."""

    results: Tuple[str, ...] = option(
        (),
        "recogs-*.txt or timestamps-*.jsonl of a decoding, or folders with recogs-*.txt, e.g. "
        "exp/greedy_search",
        positional=True,
        path=PathKind.EITHER,
    )
    cuts: str = option(
        "",
        "manifest of the test set, for players and speakers; file names in it are taken from the "
        "current folder",
        path=PathKind.FILE,
    )
    ref: str = option("", "references; left out: those of the results' files", path=PathKind.FILE)
    normalize: str = option(
        "none", "how both are changed before they are compared, e.g. no-tags+no-punct+lower"
    )
    out: str = option(
        "", "the report's file; left out: report-*.html beside the results", path=PathKind.OUTPUT
    )

"""Options of what decoding tells besides the words."""

from dataclasses import dataclass

from asr_core.utils.errors import UserError
from asr_core.utils.options import option


@dataclass
class ScoreOptions:
    """Scoring: how words are compared."""

    normalize: str = option(
        "",
        "how references and hypotheses are changed before they are compared, e.g. no-punct+lower; left out: as the corpus says",
    )
    cer: bool = option(
        False, "the table also has character error rates and the share of sentences without errors"
    )


@dataclass
class ConfidenceOptions:
    """Confidences: how far words can be trusted."""

    write_confidence: bool = option(
        False, "write each word's confidence into timestamps-*.jsonl, and with --write-nbest there, too"
    )
    confidence_measure: str = option(
        "prob",
        "of a token: its probability, or how far the entropy is from its greatest",
        choices=("prob", "gibbs", "tsallis", "renyi"),
    )
    confidence_alpha: float = option(1 / 3, "exponent of tsallis and renyi, between 0 and 1")
    confidence_aggregation: str = option("min", "of a word, from its tokens", choices=("min", "mean", "prod"))


@dataclass
class DetailOptions(ConfidenceOptions):
    """Details: what is written beside the transcripts."""

    write_timestamps: bool = option(False, "write when each token and word was said into timestamps-*.jsonl")
    write_nbest: int = option(
        0, "write so many best hypotheses of each utterance into nbest-*.jsonl; 0 for none"
    )
    html_report: bool = option(
        False, "write report-*.html: alignments, errors by word and speaker, audio; opens without a network"
    )
    embed_audio: bool = option(False, "the report holds the audio itself, in place of links to it")
    embed_limit: float = option(
        50.0, "megabytes of audio that the report may hold; the utterances with the most errors go first"
    )


def check_details(opts: DetailOptions) -> None:
    """Refuse values that make no sense.

    Raises:
      UserError: naming the option.
    """
    if not 0 < opts.confidence_alpha < 1:
        raise UserError(f"--confidence-alpha must be between 0 and 1, got {opts.confidence_alpha}")
    if opts.write_nbest < 0:
        raise UserError(f"--write-nbest must be 0 or more, got {opts.write_nbest}")
    if not opts.embed_limit > 0:
        raise UserError(f"--embed-limit must be above 0, got {opts.embed_limit}")
    if opts.embed_audio and not opts.html_report:
        raise UserError("--embed-audio 1 is about the report: give --html-report 1, too")

"""The rules that cuts must keep, each one entry of a table, and their names.

Training, validation and decoding share them. A cut that breaks a rule is left out and counted under
the rule's name.
"""

import math
from typing import Callable, NamedTuple, Protocol, Sequence, Tuple

from asr_core.data.cut_summary import CutSummary, text_of
from asr_core.data.options import DataOptions

# Seconds by which a supervision may lie outside its cut, and a cut outside its recording: manifests
# round, and segments are often some samples too long. It is half a frame of most encoders.
TOLERANCE = 0.02

DUPLICATE = "an id that an earlier cut has"


class FrameNeeds(NamedTuple):
    """How many encoder frames a model's losses need for a transcript.

    Attributes:
      tokens_per_frame: the most tokens that a frame can emit.
      blanks: whether there must be a blank between equal tokens, as in CTC.
    """

    tokens_per_frame: float = 1
    blanks: bool = False


class Limits(Protocol):
    """What the rules ask of whoever applies them.

    Attributes:
      opts: the limits of duration, the form of the features; whether cuts without words are kept.
      needs: what the losses ask of the encoder frames.
    """

    opts: DataOptions
    needs: FrameNeeds

    @property
    def stored(self) -> bool:
        """Whether batches are made of stored features."""

    def encoder_frames(self, cut: CutSummary) -> int:
        """Return how many frames the encoder makes of ``cut``, or a few less."""


class CutRule(NamedTuple):
    """What makes a cut unfit.

    Attributes:
      name: the reason, under which cuts are counted; fields of the filter, such as
        ``{opts.min_duration}``, and of the cut are filled in.
      broken: says whether a cut breaks the rule.
      training: the rule is for training and validation only; other cuts can be decoded.
    """

    name: str
    broken: Callable[[CutSummary, Limits], bool]
    training: bool = False


class TokenRule(NamedTuple):
    """What makes the tokens of a cut unfit; the arguments of ``broken`` are (tokens, frames)."""

    name: str
    broken: Callable[[Sequence[int], int, Limits], bool]


def neighbours(tokens: Sequence[int]) -> int:
    """Return how many tokens equal the one before them: CTC needs a blank between the two."""
    return sum(a == b for a, b in zip(tokens, tokens[1:]))


def _beyond_recording(cut: CutSummary) -> bool:
    return cut.recording_duration is not None and not (
        cut.start + cut.duration <= cut.recording_duration + TOLERANCE
    )


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


def _overlap(cut: CutSummary) -> bool:
    spans = sorted((s.start, s.end) for s in cut.supervisions)
    return any(later[0] < earlier[1] - TOLERANCE for earlier, later in zip(spans, spans[1:]))


# The first that is broken is the reason; those at the top are of cuts that make no sense at all.
# Whoever checks cuts goes by this table: training, validation, decoding, validate_manifest.
CUT_RULES: Tuple[CutRule, ...] = (
    CutRule("a duration that is no positive number", lambda c, _: not _is_positive(c.duration)),
    CutRule("a beginning before its recording's", lambda c, _: not -TOLERANCE <= c.start < math.inf),
    CutRule("an end after its recording's", lambda c, _: _beyond_recording(c)),
    CutRule(
        "a sampling rate that is no positive number",
        lambda c, _: not (c.sampling_rate is None or _is_positive(c.sampling_rate)),
    ),
    CutRule(
        "a text that is no text",
        lambda c, _: any(not isinstance(s.text, (str, type(None))) for s in c.supervisions),
    ),
    CutRule(
        "several supervisions (make one cut of each: lhotse cut trim-to-supervisions; or join them: "
        "--join-supervisions 1)",
        lambda c, f: len(c.supervisions) > 1 and not f.opts.join_supervisions,
    ),
    CutRule("supervisions that overlap", lambda c, _: _overlap(c)),
    CutRule(
        "a supervision that begins before the cut",
        lambda c, _: any(not s.start >= -TOLERANCE for s in c.supervisions),
    ),
    CutRule(
        "a supervision that ends after the cut",
        lambda c, _: any(not s.end <= c.duration + TOLERANCE for s in c.supervisions),
    ),
    CutRule(
        "a supervision that ends before it begins",
        lambda c, _: any(not s.end > s.start for s in c.supervisions),
    ),
    CutRule(
        "a supervision that begins later than the cut (trim the cut to it: lhotse cut trim-to-supervisions)",
        lambda c, _: bool(c.supervisions) and min(s.start for s in c.supervisions) > TOLERANCE,
        training=True,
    ),
    CutRule("neither features nor audio", lambda c, _: not c.has_data),
    CutRule(
        "features of another size: prepared with --num-mel-bins {cut.num_features}, not {opts.num_mel_bins}",
        lambda c, f: f.stored and c.num_features not in (0, f.opts.num_mel_bins),
    ),
    CutRule(
        "shorter than {opts.min_duration:g} s", lambda c, f: c.duration < f.opts.min_duration, training=True
    ),
    CutRule(
        "longer than {opts.max_utt_duration:g} s",
        lambda c, f: c.duration > f.opts.max_utt_duration,
        training=True,
    ),
    CutRule("no text", lambda c, f: not text_of(c) and f.opts.empty_text == "drop", training=True),
    CutRule("no frame is left after subsampling", lambda c, f: f.encoder_frames(c) < 1, training=True),
)

TOKEN_RULES: Tuple[TokenRule, ...] = (
    TokenRule(
        "more tokens, and blanks between equal ones, than encoder frames",
        lambda tokens, frames, f: f.needs.blanks and len(tokens) + neighbours(tokens) > frames,
    ),
    TokenRule(
        "more than {needs.tokens_per_frame:g} tokens per encoder frame",
        lambda tokens, frames, f: len(tokens) > f.needs.tokens_per_frame * frames,
    ),
)


def broken_rule(cut: CutSummary, limits: Limits, training: bool = True) -> str:
    """Return the name of the first rule that ``cut`` breaks, or "".

    Args:
      cut: the cut.
      limits: of whoever uses it.
      training: whether the rules of training hold, too; otherwise those of decoding.
    """
    for name, broken, only_training in CUT_RULES:
        if (training or not only_training) and broken(cut, limits):
            return filled_in(name, cut, limits)
    return ""


def filled_in(name: str, cut: CutSummary, limits: Limits) -> str:
    """Return the name of a rule with the values of a cut and of limits in it."""
    return name.format(opts=limits.opts, needs=limits.needs, cut=cut) if "{" in name else name

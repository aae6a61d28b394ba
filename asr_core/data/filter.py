"""Dropping of cuts that cannot be used: they are counted and named."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Set, Union

from asr_core.data.options import TrainingBatchOptions
from asr_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lhotse.cut import Cut

# how the reasons of such drops begin
UNKNOWN = "characters that the tokens lack"
RESERVED = "symbols that no text may have"


@dataclass
class SupervisionSummary:
    """The part of a supervision that the filter looks at."""

    text: Optional[str]


@dataclass
class CutSummary:
    """The part of a cut that the filter looks at, read from a manifest's line."""

    id: str
    duration: float
    supervisions: List[SupervisionSummary]
    has_features: bool
    num_frames: int


CutLike = Union[CutSummary, "Cut"]


def subsampled_length(num_frames: int, subsampling_factor: int = 4) -> int:
    """Return a lower bound of the frames that an encoder makes of ``num_frames`` feature frames.

    It is exact for a Zipformer, whose front end gives (T - 7) // 2 frames and whose output is
    downsampled by 2. Encoders of another rate give as many in proportion, or a few more.
    """
    return ((num_frames - 7) // 2 + 1) // 2 * 4 // subsampling_factor


class DropReport:
    """Record of the cuts that were dropped and why; each cut counts once, however often it is met.

    Attributes:
      ids: ids of the dropped cuts, by reason.
    """

    def __init__(self) -> None:
        self.ids: Dict[str, List[str]] = {}
        self._seen: Set[str] = set()
        self._reported: Dict[str, int] = {}

    def add(self, cut_id: str, reason: str) -> None:
        """Record that ``cut_id`` was dropped because of ``reason``."""
        if cut_id not in self._seen:
            self._seen.add(cut_id)
            self.ids.setdefault(reason, []).append(cut_id)

    @property
    def total(self) -> int:
        """Number of dropped cuts."""
        return len(self._seen)

    def counts(self) -> Dict[str, int]:
        """Return the number of dropped cuts by reason."""
        return {reason: len(ids) for reason, ids in self.ids.items()}

    def __str__(self) -> str:
        return _listed(self.ids)

    def log(self, source: str) -> None:
        """Log the cuts noted since the last report; ``source`` says where they were met."""
        new = {reason: ids[self._reported.get(reason, 0) :] for reason, ids in self.ids.items()}
        number = sum(map(len, new.values()))
        if number:
            logging.warning("%s: %d cuts dropped: %s", source, number, _listed(new))
        self.mark_reported()

    def mark_reported(self) -> None:
        """Mark everything recorded so far as reported."""
        self._reported = self.counts()


def _listed(ids_by_reason: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for reason, ids in sorted(ids_by_reason.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(ids) > 3 else ""
        if ids:
            parts.append(f"{len(ids)} x {reason} ({', '.join(ids[:3])}{more})")
    return "; ".join(parts) or "none"


@dataclass(eq=False)
class CutFilter:
    """Filter that keeps the cuts that can be trained on.

    Attributes:
      opts: the limits of duration; whether cuts without words are kept.
      tokenizer: if given, cuts with text that it cannot spell are dropped, and cuts with more
        tokens than encoder frames less two (as in icefall's zipformer recipe): the pruned
        transducer loss needs at least as many frames as tokens.
      report: record of dropped cuts.
      subsampling_factor: feature frames per encoder frame.
      unknown: characters that the tokenizer cannot spell, and in how many cuts each was met.
    """

    opts: TrainingBatchOptions
    tokenizer: Optional[Tokenizer]
    report: DropReport
    subsampling_factor: int = 4
    unknown: "Counter[str]" = field(default_factory=Counter, init=False)

    def count_tokens(self, cuts: Sequence[CutLike]) -> List[Optional[int]]:
        """Count the tokens of each cut (0 without a tokenizer).

        The entries of cuts that cannot be used are None; these cuts are noted in the report.
        """
        reasons = [self._reason(cut) for cut in cuts]
        counts = [0] * len(cuts)
        if self.tokenizer is not None:
            good = [i for i, reason in enumerate(reasons) if not reason]
            for i, ids in zip(good, self.tokenizer.encode([text_of(cuts[i]) for i in good])):
                counts[i] = len(ids)
                reasons[i] = self._reason_of_tokens(self.tokenizer, cuts[i], ids)
        for cut, reason in zip(cuts, reasons):
            if reason:
                self.report.add(cut.id, reason)
        return [None if reason else count for count, reason in zip(counts, reasons)]

    def _reason(self, cut: CutLike) -> str:
        if cut.duration < self.opts.min_duration:
            return f"shorter than {self.opts.min_duration:g} s"
        if cut.duration > self.opts.max_utt_duration:
            return f"longer than {self.opts.max_utt_duration:g} s"
        if not text_of(cut) and self.opts.empty_text == "drop":
            return "no text"
        return "" if self._encoder_frames(cut) >= 1 else "no frame is left after subsampling"

    def _reason_of_tokens(self, tokenizer: Tokenizer, cut: CutLike, ids: Sequence[int]) -> str:
        if tokenizer.unk_id in ids:
            if reserved := tokenizer.reserved_symbols(text_of(cut)):
                return f"{RESERVED}: {' '.join(reserved)}"
            if characters := tokenizer.unknown_characters(text_of(cut)):
                self.unknown.update(characters)
                return f"{UNKNOWN}: {characters}"
        return "more tokens than encoder frames" if self._encoder_frames(cut) - 2 < len(ids) else ""

    def _encoder_frames(self, cut: CutLike) -> int:
        num_frames = cut.num_frames if cut.has_features else round(cut.duration * 100)
        return subsampled_length(num_frames, self.subsampling_factor)


def text_of(cut: CutLike) -> str:
    """Return the transcript of ``cut``, its supervisions joined."""
    return " ".join(s.text or "" for s in cut.supervisions).strip()

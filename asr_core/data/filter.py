"""Dropping of cuts that cannot be used: they are counted and named."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Set

from asr_core.data.cut_rules import TOKEN_RULES, FrameNeeds, broken_rule, filled_in
from asr_core.data.cut_summary import CutSummary, text_of
from asr_core.data.options import DataOptions
from asr_core.text.tokenizer import Tokenizer

# how the reasons of such drops begin
UNKNOWN = "characters that the tokens lack"
RESERVED = "symbols that no text may have"


def subsampled_length(num_frames: int, subsampling_factor: int = 4) -> int:
    """Return a lower bound of the frames that an encoder makes of ``num_frames`` feature frames.

    It is exact for a Zipformer, whose front end gives (T - 7) // 2 frames and whose output is
    downsampled by 2. Encoders of another rate give as many in proportion, or a few more.
    """
    return ((num_frames - 7) // 2 + 1) // 2 * 4 // subsampling_factor


class DropReport:
    """Record of the cuts that were dropped and why; each cut counts once, however often it is met.

    Args:
      total: notes everything, too; of several reports of parts it counts a cut once.

    Attributes:
      ids: ids of the dropped cuts, by reason.
    """

    def __init__(self, total: Optional["DropReport"] = None) -> None:
        self.ids: Dict[str, List[str]] = {}
        self._whole = total
        self._parts: List[DropReport] = []
        if total is not None:
            total._parts.append(self)
        self._seen: Set[str] = set()
        self._reported: Dict[str, int] = {}

    def add(self, cut_id: str, reason: str) -> None:
        """Record that ``cut_id`` was dropped because of ``reason``."""
        if cut_id not in self._seen:
            self._seen.add(cut_id)
            self.ids.setdefault(reason, []).append(cut_id)
            if self._whole is not None:
                self._whole.add(cut_id, reason)

    def add_again(self, cut_id: str, reason: str) -> None:
        """Record a further cut of the id ``cut_id``, once for each id and reason."""
        self.add(f"{cut_id} again", reason)

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
        """Mark everything recorded so far, in parts too, as reported."""
        self._reported = self.counts()
        for part in self._parts:
            part.mark_reported()


def _listed(ids_by_reason: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for reason, ids in sorted(ids_by_reason.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(ids) > 3 else ""
        if ids:
            parts.append(f"{len(ids)} x {reason} ({', '.join(ids[:3])}{more})")
    return "; ".join(parts) or "none"


@dataclass(eq=False)
class CutFilter:
    """Filter that keeps the cuts that break none of the rules, see :mod:`asr_core.data.cut_rules`.

    Attributes:
      opts: the limits of duration, the form of the features; whether cuts without words are kept.
      tokenizer: if given, cuts with text that it cannot spell are dropped, and cuts with more
        tokens than their encoder frames can emit.
      report: record of dropped cuts.
      subsampling_factor: feature frames per encoder frame.
      needs: what the losses ask of the encoder frames.
      training: whether the rules of training hold, too; otherwise those of decoding.
      unknown: characters that the tokenizer cannot spell, and in how many cuts each was met.
    """

    opts: DataOptions
    tokenizer: Optional[Tokenizer]
    report: DropReport
    subsampling_factor: int = 4
    needs: FrameNeeds = FrameNeeds()
    training: bool = True
    unknown: "Counter[str]" = field(default_factory=Counter)

    def count_tokens(self, cuts: Sequence[CutSummary]) -> List[Optional[int]]:
        """Count the tokens of each cut (0 without a tokenizer).

        The entries of cuts that cannot be used are None; these cuts are noted in the report.
        """
        reasons = [broken_rule(cut, self, self.training) for cut in cuts]
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

    @property
    def stored(self) -> bool:
        """Whether batches are made of stored features."""
        return self.opts.strategy == "PrecomputedFeatures"

    def encoder_frames(self, cut: CutSummary) -> int:
        """Return how many frames the encoder makes of ``cut``, or a few less."""
        num_frames = cut.num_frames if cut.has_features else round(cut.duration * 100)
        return subsampled_length(num_frames, self.subsampling_factor)

    def _reason_of_tokens(self, tokenizer: Tokenizer, cut: CutSummary, ids: Sequence[int]) -> str:
        if tokenizer.unk_id in ids:
            if reserved := tokenizer.reserved_symbols(text_of(cut)):
                return f"{RESERVED}: {' '.join(reserved)}"
            if characters := tokenizer.unknown_characters(text_of(cut)):
                self.unknown.update(characters)
                return f"{UNKNOWN}: {characters}"
        frames = self.encoder_frames(cut)
        broken = (filled_in(name, cut, self) for name, rule in TOKEN_RULES if rule(ids, frames, self))
        return next(broken, "")

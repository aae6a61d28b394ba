"""Cuts that cannot be used are dropped, counted and named."""

import logging
from collections import Counter
from typing import Any, Dict, List, Mapping, Optional, Sequence

from asr_core.data.options import DataOptions
from asr_core.text.tokenizer import Tokenizer

UNKNOWN = "characters that the tokens lack"  # how the reason begins that such cuts are dropped for


def subsampled_length(num_frames: int, subsampling_factor: int = 4) -> int:
    """Frames that an encoder gives for ``num_frames`` feature frames: those of a Zipformer, or as many at another rate, or few more."""
    return ((num_frames - 7) // 2 + 1) // 2 * 4 // subsampling_factor


class DropReport:
    """Which cuts were dropped and why; each cut counts once, however often an epoch meets it."""

    def __init__(self) -> None:
        self.ids: Dict[str, List[str]] = {}
        self._seen: set = set()
        self._told: Dict[str, int] = {}

    def add(self, cut_id: str, reason: str) -> None:
        """Note that ``cut_id`` was dropped because of ``reason``."""
        if cut_id not in self._seen:
            self._seen.add(cut_id)
            self.ids.setdefault(reason, []).append(cut_id)

    @property
    def total(self) -> int:
        return len(self._seen)

    def counts(self) -> Dict[str, int]:
        """Number of dropped cuts by reason."""
        return {reason: len(ids) for reason, ids in self.ids.items()}

    def __str__(self) -> str:
        return _listed(self.ids)

    def log(self, what: str) -> None:
        """Log what was noted since the last time."""
        new = {reason: ids[self._told.get(reason, 0) :] for reason, ids in self.ids.items()}
        number = sum(map(len, new.values()))
        if number:
            logging.warning("%s: %d cuts dropped: %s", what, number, _listed(new))
        self.mark_reported()

    def mark_reported(self) -> None:
        """Take it that the user knows what was noted so far."""
        self._told = self.counts()


def _listed(ids_by_reason: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for reason, ids in sorted(ids_by_reason.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(ids) > 3 else ""
        if ids:
            parts.append(f"{len(ids)} x {reason} ({', '.join(ids[:3])}{more})")
    return "; ".join(parts) or "none"


class CutFilter:
    """Tells whether a cut can be trained on.

    Args:
      opts: the limits of duration.
      tokenizer: if given, cuts with text that it cannot spell are dropped, and cuts with more tokens than encoder frames less two
        (as icefall's zipformer recipe has it).
      report: where dropped cuts are noted.
      subsampling_factor: feature frames per encoder frame.

    Attributes:
      unknown: characters that the tokenizer cannot spell, and in how many cuts each was met.
    """

    def __init__(
        self,
        opts: DataOptions,
        tokenizer: Optional[Tokenizer],
        report: DropReport,
        subsampling_factor: int = 4,
    ) -> None:
        self.opts = opts
        self.subsampling_factor = subsampling_factor
        self.tokenizer = tokenizer
        self.report = report
        self.unknown: Counter = Counter()

    def __call__(self, cut: Any) -> bool:
        return self.count_tokens([cut])[0] is not None

    def count_tokens(self, cuts: Sequence[Any]) -> List[Optional[int]]:
        """The number of tokens of each cut (0 without a tokenizer), None for those that cannot be used, which are noted."""
        reasons = [self._reason(cut) for cut in cuts]
        counts = [0] * len(cuts)
        if self.tokenizer is not None:
            good = [i for i, reason in enumerate(reasons) if not reason]
            for i, ids in zip(good, self.tokenizer.encode([text_of(cuts[i]) for i in good])):
                counts[i], reasons[i] = len(ids), self._reason_of_tokens(cuts[i], ids)
        for cut, reason in zip(cuts, reasons):
            if reason:
                self.report.add(cut.id, reason)
        return [None if reason else count for count, reason in zip(counts, reasons)]

    def _reason(self, cut: Any) -> str:
        if cut.duration < self.opts.min_duration:
            return f"shorter than {self.opts.min_duration:g} s"
        if cut.duration > self.opts.max_utt_duration:
            return f"longer than {self.opts.max_utt_duration:g} s"
        if not text_of(cut):
            return "no text"
        return "" if self._encoder_frames(cut) >= 1 else "no frame is left after subsampling"

    def _reason_of_tokens(self, cut: Any, ids: Sequence[int]) -> str:
        if self.tokenizer.unk_id in ids:  # type: ignore[union-attr]
            characters = self.tokenizer.unknown_characters(text_of(cut))  # type: ignore[union-attr]
            self.unknown.update(characters)
            return f"{UNKNOWN}: {characters}"
        return "more tokens than encoder frames" if self._encoder_frames(cut) - 2 < len(ids) else ""

    def _encoder_frames(self, cut: Any) -> int:
        return subsampled_length(
            cut.num_frames if cut.has_features else round(cut.duration * 100), self.subsampling_factor
        )


def text_of(cut: Any) -> str:
    """What is said in ``cut``."""
    return " ".join(s.text or "" for s in cut.supervisions).strip()

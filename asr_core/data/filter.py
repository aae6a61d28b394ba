"""Cuts that cannot be used are dropped, counted and named."""

import logging
from typing import Any, Dict, List, Optional

from asr_core.data.options import DataOptions
from asr_core.text.tokenizer import Tokenizer


def subsampled_length(num_frames: int) -> int:
    """Frames that the encoder gives for ``num_frames`` feature frames: half in the front end, half at the output."""
    return ((num_frames - 7) // 2 + 1) // 2


class DropReport:
    """Which cuts were dropped and why; each cut counts once, however often an epoch meets it."""

    def __init__(self) -> None:
        self.ids: Dict[str, List[str]] = {}
        self._seen: set = set()
        self._logged = 0

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
        parts = []
        for reason, ids in sorted(self.ids.items(), key=lambda item: -len(item[1])):
            more = ", ..." if len(ids) > 3 else ""
            parts.append(f"{len(ids)} x {reason} ({', '.join(ids[:3])}{more})")
        return "; ".join(parts) or "none"

    def log(self, what: str) -> None:
        """Log the report if it grew since it was last logged."""
        if self.total > self._logged:
            self._logged = self.total
            logging.warning("%s: %d cuts dropped: %s", what, self.total, self)


class CutFilter:
    """Tells whether a cut can be trained on.

    Args:
      opts: the limits of duration.
      tokenizer: if given, cuts with text that it cannot spell, or with more tokens than encoder frames, are dropped.
      report: where dropped cuts are noted.
    """

    def __init__(self, opts: DataOptions, tokenizer: Optional[Tokenizer], report: DropReport) -> None:
        self.opts = opts
        self.tokenizer = tokenizer
        self.report = report

    def __call__(self, cut: Any) -> bool:
        reason = self.reason(cut)
        if reason:
            self.report.add(cut.id, reason)
        return not reason

    def reason(self, cut: Any) -> str:
        """Why ``cut`` cannot be used, or an empty string if it can."""
        if cut.duration < self.opts.min_duration:
            return f"shorter than {self.opts.min_duration:g} s"
        if cut.duration > self.opts.max_utt_duration:
            return f"longer than {self.opts.max_utt_duration:g} s"
        text = " ".join(s.text or "" for s in cut.supervisions).strip()
        if not text:
            return "no text"
        frames = cut.num_frames if cut.has_features else round(cut.duration * 100)
        length = subsampled_length(frames)
        if length < 1:
            return "no frame is left after subsampling"
        if self.tokenizer is None:
            return ""
        ids = self.tokenizer.encode([text])[0]
        if self.tokenizer.unk_id in ids:
            return f"characters that the tokens lack: {self.tokenizer.unknown_characters(text)}"
        if length < len(ids):
            return "more tokens than encoder frames"
        return ""

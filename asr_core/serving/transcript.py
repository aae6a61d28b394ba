"""Transcripts of recordings, and how they are printed."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List

from asr_core.serving.options import TranscribeOptions


@dataclass
class Transcript:
    """The transcript of a recording.

    Attributes:
      path: the recording's file, or what else names it.
      text: its words.
      duration: seconds.
      tokens: as they were emitted.
      timestamps: seconds at which each token was emitted.
      words: each with its times and its confidence, if there is one.
    """

    path: str
    text: str = ""
    duration: float = 0.0
    tokens: List[str] = field(default_factory=list)
    timestamps: List[float] = field(default_factory=list)
    words: List[Dict[str, Any]] = field(default_factory=list)

    def add(self, record: Dict[str, Any]) -> None:
        """Append the next piece's text; ``record`` comes from a RecordFormatter."""
        self.text = " ".join(filter(None, (self.text, record["text"])))
        self.tokens.extend(record["tokens"])
        self.timestamps.extend(record["timestamps"])
        self.words.extend(record["words"])


def format_transcript(transcript: Transcript, opts: TranscribeOptions) -> str:
    """Return the line, or lines, to print for a transcript."""
    if opts.json:
        return json.dumps(asdict(transcript), ensure_ascii=False)
    lines = [f"{transcript.path}: {transcript.text}"]
    for word in transcript.words if opts.timestamps or opts.confidence else []:
        times = f"{word['start']:9.2f} {word['end']:9.2f}" if opts.timestamps else ""
        confidence = f" {word['confidence']:9.2f}" if "confidence" in word else ""
        lines.append(f"{times}{confidence}  {word['w']}")
    return "\n".join(lines)

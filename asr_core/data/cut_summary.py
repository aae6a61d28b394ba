"""The part of a cut that rules look at, read from its line or from the cut itself."""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Mapping, Optional

from asr_core.data.cut_refs import LineRef
from asr_core.data.sources import check_sources

if TYPE_CHECKING:
    from lhotse.cut import Cut


@dataclass
class SupervisionSummary:
    """The part of a supervision that rules look at; times are relative to the cut, in seconds."""

    text: object
    start: float = 0.0
    end: float = 0.0


@dataclass
class CutSummary:
    """The part of a cut that rules look at.

    Attributes:
      id: its id.
      start, duration: its place in the recording, in seconds.
      supervisions: its supervisions.
      has_features: whether features are stored.
      has_data: whether features are stored, or audio.
      num_frames: how many; 0 without.
      num_features: how many values a frame has; 0 without.
      recording_duration: seconds of the recording; None where the manifest does not say.
      sampling_rate: samples per second; None where the manifest does not say.
    """

    id: str
    start: float
    duration: float
    supervisions: List[SupervisionSummary]
    has_features: bool
    has_data: bool
    num_frames: int
    num_features: int = 0
    recording_duration: Optional[float] = None
    sampling_rate: Optional[float] = None


def text_of(cut: CutSummary) -> str:
    """Return the transcript of ``cut``, its supervisions joined."""
    return " ".join(str(s.text) for s in cut.supervisions if s.text).strip()


def view_of_line(line: bytes, speed: float = 1.0, allow_commands: bool = False) -> CutSummary:
    """Return the part of a cut in JSON that rules look at, if possible without building the cut.

    Raises:
      ValueError, KeyError, TypeError, AttributeError: the line is not a cut in JSON.
      UserError: reading the cut could run a program, and that is not allowed.
    """
    data = json.loads(line)
    cut_type = data.get("type")
    check_sources(data, allow_commands)
    if cut_type != "MonoCut":
        return summary_of(LineRef(line, speed).cut())
    return _summary_of_json(data, speed)


def _summary_of_json(data: Mapping[str, Any], speed: float) -> CutSummary:
    if not isinstance(data["id"], str):
        raise TypeError("its id is not text")
    duration = data["duration"] / speed
    features, recording = data.get("features"), data.get("recording")
    holder = recording or features
    return CutSummary(
        id=data["id"] if speed == 1.0 else f"{data['id']}_sp{speed:g}",
        start=data["start"] / speed,
        duration=duration,
        supervisions=[_supervision(s, speed) for s in data.get("supervisions") or ()],
        has_features=bool(features),
        has_data=bool(features or recording),
        num_frames=_frames(features, duration) if features else 0,
        num_features=features["num_features"] if features else 0,
        recording_duration=recording["duration"] / speed if recording else None,
        sampling_rate=holder["sampling_rate"] if holder else None,
    )


def _supervision(data: Mapping[str, Any], speed: float) -> SupervisionSummary:
    start = data["start"] / speed
    return SupervisionSummary(data.get("text"), start, start + data["duration"] / speed)


def _frames(features: Mapping[str, Any], duration: float) -> int:
    if abs(features["duration"] - duration) < 1e-4:
        return int(features["num_frames"])
    frames: float = duration / features["frame_shift"]
    return round(frames) if math.isfinite(frames) else 0


def summary_of(cut: "Cut") -> CutSummary:
    """Return the part of ``cut`` that rules look at."""
    recording = getattr(cut, "recording", None)  # a mixed cut has several
    features = getattr(cut, "features", None)
    return CutSummary(
        id=cut.id,
        start=cut.start,
        duration=cut.duration,
        supervisions=[SupervisionSummary(s.text, s.start, s.end) for s in cut.supervisions],
        has_features=cut.has_features,
        has_data=cut.has_features or cut.has_recording,
        num_frames=(cut.num_frames or 0) if cut.has_features else 0,
        num_features=features.num_features if features is not None else 0,
        recording_duration=recording.duration if recording is not None else None,
        sampling_rate=getattr(cut, "sampling_rate", None),  # nothing without data
    )

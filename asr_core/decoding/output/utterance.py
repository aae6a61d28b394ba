"""Decoded utterances of a test set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from asr_core.decoding.hypothesis import Hypothesis

if TYPE_CHECKING:
    from lhotse.cut import Cut


@dataclass(frozen=True)
class Audio:
    """Location of the audio of an utterance.

    Attributes:
      path: the file.
      start, duration: seconds in it.
      channel: counts from 0.
    """

    path: str
    start: float
    duration: float
    channel: int = 0


@dataclass(frozen=True)
class Decoded:
    """A decoded utterance.

    Attributes:
      cut_id: id of its cut.
      text: its transcript in the corpus's manifest.
      hypotheses: the answer of each of the method's results, by the result's name.
      audio_seconds: its duration.
      compute_seconds: its share of the time that its batch took in encoder and search.
      speaker: the speaker's name; "" if the manifest has none.
      audio: None if no file holds exactly this audio.
      nbest: the best hypotheses, if they were asked for.
      in_windows: whether it was decoded piece by piece because of its length.
    """

    cut_id: str
    text: str
    hypotheses: Mapping[str, Hypothesis]
    audio_seconds: float
    compute_seconds: float
    speaker: str = ""
    audio: Optional[Audio] = None
    nbest: Sequence[Hypothesis] = ()
    in_windows: bool = False

    @staticmethod
    def of_cut(
        cut: "Cut",
        hypotheses: Mapping[str, Hypothesis],
        compute_seconds: float = 0.0,
        nbest: Sequence[Hypothesis] = (),
        in_windows: bool = False,
    ) -> "Decoded":
        """Combine the hypotheses with the metadata of a lhotse cut."""
        speaker = (cut.supervisions[0].speaker or "") if cut.supervisions else ""
        return Decoded(
            cut_id=cut.id,
            text=transcript_of(cut),
            hypotheses=hypotheses,
            audio_seconds=cut.duration,
            compute_seconds=compute_seconds,
            speaker=speaker,
            audio=audio_of(cut),
            nbest=nbest,
            in_windows=in_windows,
        )


def transcript_of(cut: "Cut") -> str:
    """Return the transcript of a cut, "" if it has none."""
    return (cut.supervisions[0].text or "") if cut.supervisions else ""


def audio_of(cut: "Cut") -> Optional[Audio]:
    """Return the file of a cut; None if it has none or another speed, or noise was added."""
    recording = getattr(cut, "recording", None)
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return None
    (source,) = recording.sources
    if source.type != "file":
        return None
    channel = cut.channel if isinstance(cut.channel, int) else cut.channel[0]
    return Audio(str(source.source), cut.start, cut.duration, channel)

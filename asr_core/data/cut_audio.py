"""The audio of cuts, as one channel."""

import io
import logging
from typing import TYPE_CHECKING, Set

import numpy as np
import soundfile
from lhotse import MonoCut, Recording
from lhotse.utils import fastcopy

import asr_core.data.audio  # noqa: F401  (teaches lhotse's reader more kinds of files)
from asr_core.data.channels import SILENT, level_of, pick_channel, silence_note
from asr_core.data.options import FIRST, LOUDEST, MIX

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Where a cut's custom fields say how its channels become one, if no channel alone is meant.
CUSTOM_FIELD = "channel_choice"
_warned: Set[bool] = set()  # not empty when this process has warned


def load_samples(cut: "Cut", choice: str = FIRST) -> np.ndarray:
    """Return the samples (num_samples,) float32 of a cut.

    Args:
      cut: with one channel of a recording, with several, or mixed of such.
      choice: the channel; ``first`` is the cut's own first one, or what its custom field
        :data:`CUSTOM_FIELD` says.

    Raises:
      ValueError: it has no audio, or no such channel.
    """
    tracks = getattr(cut, "tracks", None)
    if tracks is None:
        return _of_data_cut(cut, choice)
    # the choice is about speech: noise has its own
    choices = [choice if getattr(track.cut, "supervisions", None) else FIRST for track in tracks]
    if any(chosen_channel(track.cut, c) != FIRST for track, c in zip(tracks, choices)):
        one = [fastcopy(t, cut=_with_one_channel(t.cut, c)) for t, c in zip(tracks, choices)]
        cut = fastcopy(cut, tracks=one)
    return _checked(cut.load_audio())


def chosen_channel(cut: "Cut", choice: str) -> str:
    """Return the channel to take of a cut: FIRST where its own first one is meant."""
    recording = getattr(cut, "recording", None)
    if recording is None:  # padding, or features alone
        return FIRST
    if choice == FIRST:
        choice = (cut.custom or {}).get(CUSTOM_FIELD, FIRST)
    return FIRST if choice in (MIX, LOUDEST) and recording.num_channels == 1 else choice


def _of_data_cut(cut: "Cut", choice: str) -> np.ndarray:
    choice = chosen_channel(cut, choice)
    if choice == FIRST:
        samples = _checked(cut.load_audio())
        if cut.recording.num_channels > 1 and level_of(samples) <= SILENT:
            warn_of_silence(cut, all_channels(cut), samples)
        return samples
    channels = all_channels(cut)
    samples = pick_channel(channels, choice)
    warn_of_silence(cut, channels, samples)
    return _checked(samples[None])


def all_channels(cut: "Cut") -> np.ndarray:
    """Return the samples (num_channels, num_samples) of all channels of a cut's recording."""
    return cut.recording.load_audio(offset=cut.start, duration=cut.duration)


def _checked(audio: np.ndarray) -> np.ndarray:
    """Return the first channel of audio (num_channels, num_samples)."""
    if audio is None or audio.size == 0:
        raise ValueError("no audio")
    return np.ascontiguousarray(audio[0], dtype=np.float32)


def _with_one_channel(cut: "Cut", choice: str) -> "Cut":
    """Return a cut whose recording, in memory, has the chosen channel alone."""
    if chosen_channel(cut, choice) == FIRST:
        return cut
    wav = io.BytesIO()
    soundfile.write(wav, _of_data_cut(cut, choice), cut.sampling_rate, format="WAV", subtype="FLOAT")
    recording = Recording.from_bytes(wav.getvalue(), recording_id=cut.recording_id)
    return MonoCut(cut.id, 0.0, cut.duration, 0, supervisions=cut.supervisions, recording=recording)


def warn_of_silence(cut: "Cut", channels: np.ndarray, samples: np.ndarray) -> None:
    """Say it of the first such cut; a process that reads a corpus would say it of thousands."""
    note = "" if _warned else silence_note(channels, samples)
    if note:
        _warned.add(True)
        logging.warning("%s: %s; said of the first such cut only", cut.id, note)

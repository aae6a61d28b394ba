"""The waveforms of cuts as files have them, with what is left to be done: resampling, changes of
speed, mixing.
"""

from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from lhotse import MonoCut
from lhotse.audio import get_audio_duration_mismatch_tolerance
from lhotse.augmentation import AudioTransform, Resample, Speed
from lhotse.cut import PaddingCut
from lhotse.utils import Seconds, compute_num_samples, fastcopy

from asr_core.data.channels import SILENT, level_of, pick_channel
from asr_core.data.cut_audio import all_channels, chosen_channel, load_samples, warn_of_silence
from asr_core.data.options import FIRST, LOUDEST
from asr_core.data.polyphase import Resampling, has_filters, num_resampled

if TYPE_CHECKING:
    from lhotse import Recording
    from lhotse.cut import Cut

_LOOK = 256  # samples that tell whether it is worth looking at all


class Waveform(NamedTuple):
    """A piece of audio in a cut.

    Attributes:
      samples: (num_samples,) as read: int16 if these lose nothing, else float32 in [-1, 1].
      steps: the resamplings that are left.
      made: samples after them.
      size: how many of those count; if there are more, the end is mirrored to give the rest.
      start: where in the cut they begin, in samples.
      snr: decibels by which it is below the cut's reference; None: as it is.
    """

    samples: np.ndarray
    steps: Tuple[Resampling, ...]
    made: int
    size: int
    start: int = 0
    snr: Optional[float] = None


class CutAudio(NamedTuple):
    """The audio of a cut: the sum of its waveforms.

    Attributes:
      waveforms: those that are mixed; one of most cuts.
      reference: which of them the signal-to-noise ratios refer to.
      made: samples of the mix.
      size: samples of the cut; if there are more, the end is mirrored to give the rest.
    """

    waveforms: List[Waveform]
    reference: int
    made: int
    size: int


def read_waveforms(cut: "Cut", sample_rate: int, choice: str = FIRST) -> CutAudio:
    """Read the waveforms of a cut; together they are what :func:`load_samples` gives.

    What the device cannot do is done here: other changes of audio than those of rate and speed,
    rates without filters, and the choice of the loudest channel before a change of rate or speed.

    Args:
      cut: with one channel of a recording, with several, or mixed of such.
      sample_rate: the wanted rate.
      choice: the channel, see :func:`load_samples`.

    Raises:
      ValueError: it has no audio, no such channel, or samples that are not finite.
    """
    if not cut.has_recording:
        raise ValueError("no audio")
    if cut.sampling_rate != sample_rate:
        cut = cut.resample(sample_rate)
    if getattr(cut, "tracks", None) is None:
        waveform = _read(cut, choice)
        return CutAudio([waveform], 0, waveform.size, waveform.size)
    return _read_mixed(cut, choice) or _mixed_here(cut, choice)


def _mixed_here(cut: "Cut", choice: str) -> CutAudio:
    waveform = _as_is(load_samples(cut, choice))
    return CutAudio([waveform], 0, waveform.size, waveform.size)


def _read_mixed(cut: "Cut", choice: str) -> Optional[CutAudio]:
    """Read the tracks of a mixed cut; None if lhotse has to mix them."""
    reference = _reference(cut)
    if reference is None:
        return None
    waveforms: List[Waveform] = []
    made, first, rate = 0, 0, cut.sampling_rate
    for i, track in enumerate(cut.tracks):
        start = compute_num_samples(track.offset, rate)
        if isinstance(track.cut, PaddingCut):
            made = max(made, start + track.cut.num_samples)
            continue
        if i == reference:
            first = len(waveforms)
        # the choice is about speech: noise has its own
        waveform = _read(track.cut, choice if track.cut.supervisions else FIRST)
        waveforms.append(waveform._replace(start=start, snr=track.snr))
        made = max(made, start + waveform.size)
    size = cut.num_samples
    tolerance = compute_num_samples(get_audio_duration_mismatch_tolerance(), rate)
    return CutAudio(waveforms, first, made, size) if abs(size - made) < tolerance else None


def _reference(cut: Any) -> Optional[int]:
    """Return the track that others of a mixed cut are compared with; None for unusual cuts."""
    tracks = cut.tracks
    usual = all(isinstance(track.cut, (MonoCut, PaddingCut)) for track in tracks)
    if cut.transforms or not usual or any(getattr(track, "mute", False) for track in tracks):
        return None
    named = [i for i, track in enumerate(tracks) if getattr(track, "is_snr_reference", False)]
    sounding = [i for i, t in enumerate(tracks) if isinstance(t.cut, MonoCut) and t.snr is None]
    found = named[:1] or sounding[:1]
    # one with a ratio of its own lhotse scales, or not, by its place
    plain = bool(found) and isinstance(tracks[found[0]].cut, MonoCut) and tracks[found[0]].snr is None
    return found[0] if plain else None


def _read(cut: "Cut", choice: str) -> Waveform:
    """Read a cut that is not mixed."""
    choice = chosen_channel(cut, choice)
    steps = _steps(cut.recording) if isinstance(cut, MonoCut) and choice != LOUDEST else ()
    if not steps:
        return _as_is(load_samples(cut, choice))
    left = _LeftToTheDevice(cut.recording.transforms or [], steps)
    bare = fastcopy(cut, recording=fastcopy(cut.recording, transforms=[left]))
    if choice == FIRST:
        size = bare.load_audio().shape[1]
        samples = left.samples[0]
        if cut.recording.num_channels > 1 and level_of(samples) <= SILENT:
            warn_of_silence(cut, all_channels(cut), samples)
    else:
        size = all_channels(bare).shape[1]
        samples = pick_channel(left.samples, choice)
        warn_of_silence(cut, left.samples, samples)
    return Waveform(_compact(samples), steps, left.made, size)


def _as_is(samples: np.ndarray) -> Waveform:
    return Waveform(_compact(samples), (), len(samples), len(samples))


def _compact(samples: np.ndarray) -> np.ndarray:
    """Return samples as int16 if these are the same; they are, of all sources of up to 16 bits.

    Raises:
      ValueError: there are none, or they are not finite.
    """
    if not samples.size:
        raise ValueError("no audio")
    if not np.isfinite(samples).all():
        raise ValueError("not finite")
    for part in (samples[:_LOOK], samples):
        scaled = part * np.float32(32768.0)
        with np.errstate(invalid="ignore"):  # of numbers out of range, which then differ
            words = scaled.astype(np.int16)
        if not np.array_equal(words, scaled):
            return np.ascontiguousarray(samples, dtype=np.float32)
    return words


def _steps(recording: "Recording") -> Tuple[Resampling, ...]:
    """Return the resamplings that a recording is read with; none if there are other changes, too,
    or some for which the device has no filters.
    """
    steps = []
    for change in recording.transforms or []:
        if not isinstance(change, AudioTransform):
            change = AudioTransform.from_dict(change)
        if isinstance(change, Speed):  # lhotse counts in the rate that the recording has in the end
            rate = recording.sampling_rate
            step = Resampling(round(rate * change.factor), rate, change.factor)
        elif isinstance(change, Resample):
            step = Resampling(change.source_sampling_rate, change.target_sampling_rate)
        else:
            return ()
        if not has_filters(step.source, step.target):
            return ()
        steps.append(step)
    # a video's audio is as long as the video, which lhotse sees to
    return () if getattr(recording, "has_video", False) else tuple(steps)


class _LeftToTheDevice(AudioTransform):
    """Stands in for the changes of a recording: keeps what it is to change, and returns silence.

    So lhotse finds the place in the file, chooses sources and channels and checks lengths as ever.

    Args:
      changes: of the recording.
      steps: the same as resamplings.

    Attributes:
      samples: (num_channels, num_samples) as read.
      made: number of samples after the changes.
    """

    def __init__(self, changes: Sequence[object], steps: Tuple[Resampling, ...]) -> None:
        self.changes = [c if isinstance(c, AudioTransform) else AudioTransform.from_dict(c) for c in changes]
        self.steps = steps
        self.samples = np.zeros((0, 0), dtype=np.float32)
        self.made = 0

    def __call__(self, samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Keep samples (num_channels, num_samples)."""
        self.samples, self.made = samples, samples.shape[1]
        for step in self.steps:
            self.made = num_resampled(self.made, step)
        return np.broadcast_to(np.float32(0.0), (len(samples), self.made))

    def reverse_timestamps(
        self, offset: Seconds, duration: Optional[Seconds], sampling_rate: int
    ) -> Tuple[Seconds, Optional[Seconds]]:
        """Return where in the file the audio lies."""
        for change in reversed(self.changes):
            offset, duration = change.reverse_timestamps(offset, duration, sampling_rate)
        return offset, duration

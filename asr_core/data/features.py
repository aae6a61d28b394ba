"""Log-mel features of audio, the same in preparation, training, decoding and transcription."""

import logging
import math
import shutil
import struct
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Dict, Optional, Tuple, Union

import numpy as np
import soundfile
import torch
from lhotse.augmentation import Resample
from lhotse.features.base import FeatureExtractor
from lhotse.features.kaldi.extractors import Fbank, FbankConfig
from torch import Tensor

from asr_core.data import log_mel
from asr_core.data.log_mel import LogMel, LogMelConfig
from asr_core.data.options import FEATURE_TYPES
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

LOG_EPS = math.log(1e-10)  # value of padding frames: the log of the smallest energy, as in lhotse
_FFMPEG_RATE = 16000  # Hz


@lru_cache(maxsize=8)
def make_extractor(
    sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> FeatureExtractor:
    """Return a lhotse extractor; ``extract(samples in [-1, 1], sample_rate)`` gives (T, C).

    ``fbank`` is Kaldi-compatible: 25-ms povey windows every 10 ms, no dither, the last filter
    ending 400 Hz below the Nyquist frequency, one frame per shift (``snip_edges`` off).
    ``log-mel``: see :mod:`asr_core.data.log_mel`.

    Raises:
      UserError: there are no such features.
    """
    if feature_type == "log-mel":
        return LogMel(LogMelConfig(sample_rate, num_mel_bins))
    if feature_type != "fbank":
        raise UserError(f"unknown --feature-type {feature_type!r}; known: {', '.join(FEATURE_TYPES)}")
    return Fbank(
        FbankConfig(
            sampling_rate=sample_rate,
            num_mel_bins=num_mel_bins,
            dither=0.0,
            snip_edges=False,
            high_freq=-400.0,
        )
    )


def describe_features(
    sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> Dict[str, Union[str, int, float]]:
    """Return all that defines the features, as JSON values, to be stored with them and with models.

    ``amplitude`` is the scale of the samples in the formula (programs pass samples in [-1, 1]
    everywhere), frequencies are in Hz, ``window`` and ``shift`` in samples.
    """
    common: Dict[str, Union[str, int, float]] = {
        "type": feature_type,
        "sample_rate": sample_rate,
        "num_mel_bins": num_mel_bins,
        "shift": sample_rate // 100,
    }
    if feature_type == "log-mel":
        return {
            **common,
            "amplitude": "int16",
            "window": log_mel.window_samples(sample_rate),
            "window_type": "hann",
            "spectrum": "magnitude",
            "low": log_mel.LOW_HZ,
            "high": log_mel.HIGH_PART * sample_rate / 2,
            "floor": log_mel.FLOOR,
        }
    return {
        **common,
        "amplitude": "unit",
        "window": sample_rate // 40,
        "window_type": "povey",
        "spectrum": "power",
        "low": 20.0,
        "high": sample_rate / 2 - 400.0,
        "floor": 1e-10,
    }


def extract_features(
    samples: Tensor, sample_rate: int, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> Tensor:
    """Compute the features of one recording.

    Args:
      samples: (num_samples,) in [-1, 1], or 16-bit integers.
      sample_rate: samples per second; no resampling happens here.
      num_mel_bins: number of filters C.
      feature_type: kind of features, see :func:`make_extractor`.

    Returns:
      (T, C) float32, 100 frames per second.
    """
    with torch.no_grad():
        extractor = make_extractor(sample_rate, num_mel_bins, feature_type)
        return extractor.extract(_in_unit(samples), sample_rate)


def _in_unit(samples: Tensor) -> Tensor:
    """Return the samples scaled to [-1, 1]."""
    return samples / 32768.0 if samples.dtype == torch.int16 else samples.float()


class FeatureStream:
    """Features of audio that comes piece by piece.

    All pieces together give what :func:`extract_features` gives for the whole.

    Args:
      sample_rate, num_mel_bins, feature_type: as for :func:`extract_features`.
    """

    _MARGIN = 1  # frames at the start of a piece that differ, because kaldi mirrors samples at the edge

    def __init__(self, sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank") -> None:
        self._form = (sample_rate, num_mel_bins, feature_type)
        self._shift = sample_rate // 100
        window = sample_rate // 40
        # Samples that a frame needs, from its first on; kaldi's windows are centred on their shift.
        self._reach = window + 1 if feature_type == "log-mel" else (window + self._shift + 1) // 2
        self._kept = torch.zeros(0)  # from frame ``_first`` on
        self._first = 0
        self._done = 0

    def accept(self, samples: Tensor) -> Tensor:
        """Add samples (num_samples,); return the frames (T, C) that they complete."""
        self._kept = torch.cat([self._kept, _in_unit(samples)])
        complete = self._first + max(0, (len(self._kept) - self._reach) // self._shift + 1)
        return self._frames(complete)

    def finish(self) -> Tensor:
        """Return the remaining frames (T, C), at the end of the audio."""
        return self._frames(None)

    def _frames(self, end: Optional[int]) -> Tensor:
        """Return the frames before ``end``, or all, that were not returned earlier."""
        sample_rate, num_mel_bins, feature_type = self._form
        if end is not None and end <= self._done:
            return torch.zeros(0, num_mel_bins)
        features = extract_features(self._kept, sample_rate, num_mel_bins, feature_type)
        out = features[self._done - self._first : None if end is None else end - self._first]
        self._done += len(out)
        keep = max(self._first, self._done - self._MARGIN)
        self._kept = self._kept[(keep - self._first) * self._shift :]
        self._first = keep
        return out


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """Resample (..., num_samples) from ``source`` to ``target`` Hz, band-limited, by lhotse."""
    if source == target:
        return samples
    return torch.from_numpy(np.asarray(Resample(source, target)(samples.numpy()), dtype=np.float32))


def load_audio(path: PathLike, sample_rate: int = 16000) -> Tensor:
    """Read the first channel of an audio file and resample it.

    Args:
      path: wav, flac, mp3, ogg, opus, ...: the formats of libsndfile; others go through ffmpeg
        where it is installed.
      sample_rate: the wanted rate.

    Returns:
      (num_samples,) float32 in [-1, 1].

    Raises:
      UserError: with the reason, if the file is missing, unreadable, cut short or empty.
    """
    samples, rate = read_audio(path)
    return resample(torch.from_numpy(samples), rate, sample_rate)


def read_audio(path: PathLike) -> Tuple[np.ndarray, int]:
    """Read the first channel (num_samples,) float32 of an audio file and its own sampling rate.

    Raises:
      UserError: as :func:`load_audio`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such audio file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty file")
    missing = _missing_wav_bytes(path)
    if missing:
        raise UserError(f"{path}: cut short, {missing} bytes of audio are missing")
    try:
        with soundfile.SoundFile(str(path)) as f:
            samples = f.read(dtype="float32", always_2d=True)
            rate, promised = f.samplerate, f.frames
            lossless = f.format not in ("MP3", "OGG")
    except (soundfile.LibsndfileError, RuntimeError) as e:
        decoded = _ffmpeg(path)
        if decoded is None:
            raise UserError(f"{path}: not readable as audio ({getattr(e, 'error_string', e)})") from e
        return decoded
    if len(samples) == 0:
        raise UserError(f"{path}: no audio in it")
    if lossless and len(samples) < promised:
        raise UserError(f"{path}: cut short, {promised - len(samples)} of {promised} samples are missing")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: samples are not finite numbers")
    return np.ascontiguousarray(samples[:, 0]), rate


def _missing_wav_bytes(path: Path) -> int:
    """Return how many of the promised bytes a RIFF file lacks; libsndfile does not check it."""
    with open(path, "rb") as f:
        head = f.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while True:
            chunk = f.read(8)
            if len(chunk) < 8:
                return 0
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                here = path.stat().st_size - f.tell()
                # Programs that write to a pipe, and do not know the length, put such sizes there.
                streamed = size in (0, 0x7FFFFFFF) or size >= 0xFFFFFF00
                return 0 if streamed else max(0, size - here)
            f.seek(size + size % 2, 1)


def _ffmpeg(path: Path) -> Optional[Tuple[np.ndarray, int]]:
    """Decode the first channel at 16 kHz with ffmpeg; None if ffmpeg is missing or fails."""
    if shutil.which("ffmpeg") is None:
        return None
    output = ["-af", "pan=mono|c0=c0", "-ar", str(_FFMPEG_RATE), "-f", "f32le", "-"]
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), *output]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        logging.debug("ffmpeg: %s", done.stderr.decode(errors="replace").strip())
        return None
    return np.frombuffer(done.stdout, np.float32).copy(), _FFMPEG_RATE

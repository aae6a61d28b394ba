"""Audio to log-mel features, the same everywhere: preparation, training, decoding, transcribing."""

import logging
import math
import shutil
import struct
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

LOG_EPS = math.log(1e-10)  # what padding frames hold


@lru_cache(maxsize=8)
def make_extractor(sample_rate: int = 16000, num_mel_bins: int = 80) -> Any:
    """The Kaldi-compatible log-mel extractor: lhotse's Fbank with 25-ms povey windows every 10 ms, no dither, last
    filter ending 400 Hz below the Nyquist frequency, as many frames as shifts fit (``snip_edges`` off)."""
    from lhotse.features.kaldi.extractors import Fbank, FbankConfig

    return Fbank(FbankConfig(sampling_rate=sample_rate, num_mel_bins=num_mel_bins, dither=0.0, snip_edges=False, high_freq=-400.0))


def extract_features(samples: Tensor, sample_rate: int, num_mel_bins: int = 80) -> Tensor:
    """Log-mel energies of one recording.

    Args:
      samples: (num_samples,) in [-1, 1].
      sample_rate: samples per second; no resampling happens here.
      num_mel_bins: number of filters C.

    Returns:
      (T, C) float32, 100 frames per second.
    """
    with torch.no_grad():
        return make_extractor(sample_rate, num_mel_bins).extract(samples.float(), sample_rate)


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """Band-limited resampling of (..., num_samples) from ``source`` to ``target`` samples per second, as lhotse does it."""
    if source == target:
        return samples
    from lhotse.augmentation import Resample

    return torch.from_numpy(np.asarray(Resample(source, target)(samples.numpy()), dtype=np.float32))


def load_audio(path: PathLike, sample_rate: int = 16000) -> Tensor:
    """The first channel of an audio file, resampled.

    Args:
      path: wav, flac, mp3, ogg, opus, ...: whatever libsndfile reads; other formats go through ffmpeg where it is installed.
      sample_rate: the wanted rate.

    Returns:
      (num_samples,) float32 in [-1, 1].

    Raises:
      UserError: with the reason, if the file is missing, unreadable, cut short or empty.
    """
    samples, rate = read_audio(path)
    return resample(torch.from_numpy(samples), rate, sample_rate)


def read_audio(path: PathLike) -> Tuple[np.ndarray, int]:
    """The first channel (num_samples,) float32 of an audio file and its own sampling rate; errors as :func:`load_audio`."""
    import soundfile

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
    """How many bytes a RIFF file lacks of what its header promises; libsndfile itself says nothing about it."""
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
                streamed = size in (0, 0x7FFFFFFF, 0xFFFFFFFF) or size >= 0xFFFFFF00  # written to a pipe: length unknown
                return 0 if streamed else max(0, size - here)
            f.seek(size + size % 2, 1)


def _ffmpeg(path: Path) -> Optional[Tuple[np.ndarray, int]]:
    """First channel at 16 kHz through ffmpeg, or None where ffmpeg is missing or fails."""
    if shutil.which("ffmpeg") is None:
        return None
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-af", "pan=mono|c0=c0", "-ar", "16000", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        logging.debug("ffmpeg: %s", done.stderr.decode(errors="replace").strip())
        return None
    return np.frombuffer(done.stdout, np.float32).copy(), 16000

"""Reading audio files: all that libsndfile or ffmpeg can decode, or a reason in one line.

Files in which libsndfile cannot seek, such as GSM 6.10 in WAV, are read from their beginning, and
WAV files whose writer never filled in the size of the data are read to their end. Importing this
module teaches lhotse's reader the same.
"""

import io
import logging
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import IO, BinaryIO, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import soundfile
import torch
from lhotse.audio.backend import (
    CompositeAudioBackend,
    LibsndfileBackend,
    LibsndfileCompatibleAudioInfo,
    get_current_audio_backend,
)
from lhotse.augmentation import Resample
from lhotse.utils import compute_num_samples
from torch import Tensor

from asr_core.data.channels import pick_channel, silence_note
from asr_core.data.options import FIRST
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_UNCOUNTED = (1 << 63) - 1  # what libsndfile says where it does not know the number of samples
_BLOCK = 1 << 16  # samples that are read at a time where libsndfile cannot seek
# What programs that write to a pipe, and do not know the length, put in the place of a size.
_UNKNOWN_SIZES = (0x7FFFFFFF, *range(0xFFFFFF00, 0x100000000))
_AU = struct.Struct(">4s5I")  # magic, offset of the data, their size, encoding, rate, channels

AnySource = Union[PathLike, IO[bytes]]


class Samples(NamedTuple):
    """The audio of a file.

    Attributes:
      channels: (num_channels, num_samples) float32 in [-1, 1].
      rate: samples per second.
    """

    channels: np.ndarray
    rate: int


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """Resample (..., num_samples) from ``source`` to ``target`` Hz, band-limited, by lhotse."""
    if source == target or not samples.numel():
        return samples
    return torch.from_numpy(np.asarray(Resample(source, target)(samples.numpy()), dtype=np.float32))


def load_audio(path: PathLike, sample_rate: int = 16000, channel: str = FIRST) -> Tensor:
    """Read one channel of an audio file and resample it.

    A warning says if the channel is silent and another is not.

    Args:
      path: wav, flac, mp3, ogg, opus, ...: the formats of libsndfile; others go through ffmpeg
        where it is installed.
      sample_rate: the wanted rate.
      channel: see :class:`~asr_core.data.options.ChannelOptions`.

    Returns:
      (num_samples,) float32 in [-1, 1].

    Raises:
      UserError: with the reason, if the file is missing, unreadable, cut short or empty, or has no
        such channel.
    """
    found = read_audio(path)
    try:
        samples = pick_channel(found.channels, channel)
    except ValueError as e:
        raise UserError(f"{path}: {e}") from e
    note = silence_note(found.channels, samples)
    if note:
        logging.warning("%s: %s", path, note)
    return resample(torch.from_numpy(samples), found.rate, sample_rate)


def read_audio(path: PathLike) -> Samples:
    """Read all channels of an audio file at its own sampling rate.

    Raises:
      UserError: as :func:`load_audio`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such audio file")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: empty file")
        missing = _missing_wav_bytes(path)
        if missing:
            raise UserError(f"{path}: cut short, {missing} bytes of audio are missing")
        found, promised = _read(path)
    except UserError:
        raise
    except Exception as e:  # soundfile raises ValueError, RuntimeError and more, and the disk OSError
        decoded = _ffmpeg(path)
        if decoded is None:
            reason = str(getattr(e, "error_string", e)) or type(e).__name__
            raise UserError(f"{path}: not readable as audio ({reason})") from e
        found, promised = decoded, decoded.channels.shape[1]
    length = found.channels.shape[1]
    if length == 0:
        raise UserError(f"{path}: no audio in it")
    if length < promised:
        raise UserError(f"{path}: cut short, {promised - length} of {promised} samples are missing")
    if not np.isfinite(found.channels).all():
        raise UserError(f"{path}: samples are not finite numbers")
    return found


def read_span(source: AnySource, offset: float = 0.0, duration: Optional[float] = None) -> Samples:
    """Read ``duration`` seconds of all channels of a file, or all, from ``offset`` seconds on.

    Readers' own exceptions pass.
    """
    return _read(source, offset, duration)[0]


def can_be_cut(path: PathLike) -> bool:
    """Return whether parts of a file can be read, which is left to libsndfile."""
    try:
        soundfile.info(_name_of(path))
    except Exception:  # of the kinds that :func:`read_audio` meets
        return False
    return True


def duration_of(path: PathLike) -> float:
    """Return the seconds that a file's header promises; 0 if it cannot be read."""
    try:
        return soundfile.info(_name_of(path)).duration
    except Exception:  # of the kinds of :func:`read_audio`; reading it will report what is wrong
        return 0.0


def _name_of(path: PathLike) -> Union[str, bytes]:
    """Return a file's name as libsndfile takes it: as bytes if it is not UTF-8."""
    name = str(path)
    return name if is_text(name) else os.fsencode(name)


def is_text(name: str) -> bool:
    """Return whether the name of a file is UTF-8, so that a manifest can have it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read(source: AnySource, offset: float = 0.0, duration: Optional[float] = None) -> Tuple[Samples, int]:
    """Read a file, or ``duration`` seconds from ``offset`` on, by libsndfile.

    Returns the samples, and how many at least the file promised to have there.
    """
    with _open(source) as f:
        first = compute_num_samples(offset, f.samplerate)
        count = None if duration is None else compute_num_samples(duration, f.samplerate)
        promised = 0  # the headers of some kinds do not count exactly
        if not f.seekable():
            samples = _read_in_order(f, first, count)
        else:
            if first:
                f.seek(first)
            samples = f.read(-1 if count is None else count, dtype="float32", always_2d=True)
            if f.format not in ("MP3", "OGG"):
                promised = max(0, f.frames - first)
        promised = promised if count is None else min(promised, count)
        return Samples(np.ascontiguousarray(samples.T), f.samplerate), promised


def _read_in_order(f: soundfile.SoundFile, first: int, count: Optional[int]) -> np.ndarray:
    """Read ``count`` samples, or all, from ``first`` on, (num_samples, C), without seeking."""
    end = None if count is None else first + count
    blocks, position = [np.zeros((0, f.channels), dtype=np.float32)], 0
    while end is None or position < end:
        size = _BLOCK if end is None else min(_BLOCK, end - position)
        block = f.read(size, dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block[max(0, first - position) :])
        position += len(block)
    return np.concatenate(blocks)


def _open(source: AnySource) -> soundfile.SoundFile:
    """Open a file; look into one that is empty according to its header."""
    if not isinstance(source, (str, Path)):
        return soundfile.SoundFile(source)
    f = soundfile.SoundFile(_name_of(source))
    content = None if f.frames else _with_size(Path(source).read_bytes())
    if content is None:
        return f
    f.close()
    return soundfile.SoundFile(io.BytesIO(content))


def _chunks_of_wav(f: BinaryIO) -> List[Tuple[bytes, int, int]]:
    """Return (name, place of its content, size) of the chunks of a RIFF file, up to its data."""
    head = f.read(12)
    chunks = []
    if len(head) == 12 and head[:4] == b"RIFF" and head[8:] == b"WAVE":
        while len(chunk := f.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            chunks.append((name, f.tell(), size))
            if name == b"data" and size:
                break
            f.seek(size + size % 2, io.SEEK_CUR)
    return chunks


def _missing_wav_bytes(path: Path) -> int:
    """Return how many of the promised bytes a RIFF file lacks; libsndfile does not check it."""
    with open(path, "rb") as f:
        for name, at, size in _chunks_of_wav(f):
            if name == b"data":
                streamed = size == 0 or size in _UNKNOWN_SIZES
                return 0 if streamed else max(0, size - (path.stat().st_size - at))
    return 0


def _with_size(content: bytes) -> Optional[bytes]:
    """Return a RIFF file that has 0 for the size of its data with an unknown size in its place.

    None stands for other files, and for one that is truly without data: behind them there is
    nothing, or only chunks that end with the file.
    """
    chunks = _chunks_of_wav(io.BytesIO(content))
    at = next((at for name, at, size in chunks if name == b"data" and size == 0), len(content))
    _, last_at, last_size = chunks[-1] if chunks else (b"", len(content), 0)
    if at == len(content) or 0 <= len(content) - (last_at + last_size) <= 1:
        return None
    return content[: at - 4] + b"\xff" * 4 + content[at:]


def _ffmpeg(path: Path) -> Optional[Samples]:
    """Decode a file with ffmpeg; None if ffmpeg is missing or fails."""
    if shutil.which("ffmpeg") is None:
        return None
    # Sun's AU is the simplest format that says its rate and channels and goes through a pipe
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-xerror",
        "-i",
        str(path),
        "-vn",
        "-c:a",
        "pcm_f32be",
        "-f",
        "au",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 or len(done.stdout) < _AU.size:
        logging.debug("ffmpeg: %s", done.stderr.decode(errors="replace").strip())
        return None
    _, offset, _, _, rate, channels = _AU.unpack_from(done.stdout)
    samples = np.frombuffer(done.stdout, ">f4", offset=offset).reshape(-1, channels)
    return Samples(np.ascontiguousarray(samples.T, dtype=np.float32), rate)


class PatientBackend(LibsndfileBackend):
    """Lhotse's reader by libsndfile, which also reads what this module's beginning names."""

    def read_audio(
        self,
        path_or_fd: AnySource,
        offset: float = 0.0,
        duration: Optional[float] = None,
        force_opus_sampling_rate: Optional[int] = None,
    ) -> Tuple[np.ndarray, int]:
        """Return samples (channels, num_samples) float32 and their rate."""
        if ".tar/" in str(path_or_fd):  # a member of a tar file, which lhotse opens
            return super().read_audio(path_or_fd, offset, duration, force_opus_sampling_rate)
        return read_span(path_or_fd, offset, duration)

    def info(
        self, path_or_fd: AnySource, force_opus_sampling_rate: Optional[int] = None
    ) -> LibsndfileCompatibleAudioInfo:
        """Return what lhotse records of a file."""
        found = super().info(path_or_fd)
        if found.frames and found.frames != _UNCOUNTED:
            return found
        channels, rate = _read(path_or_fd)[0]
        frames = channels.shape[1]
        return LibsndfileCompatibleAudioInfo(len(channels), frames, rate, frames / rate)


def _add_to_lhotse() -> None:
    backend = get_current_audio_backend()
    if isinstance(backend, CompositeAudioBackend):  # otherwise the user has chosen a single reader
        own = PatientBackend()
        backend.backends = [own if type(b) is LibsndfileBackend else b for b in backend.backends]


_add_to_lhotse()

"""Cuts of noise, in windows of some seconds, from a folder of recordings or from manifests."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, List, Sequence

from lhotse import MonoCut, Recording, RecordingSet

from asr_core.data.manifest import write_cuts
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut

_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}


def noise_windows(
    recordings: Iterable[Recording],
    sample_rate: int,
    *,
    window: float,
    min_duration: float,
    keep_short: bool,
) -> List["Cut"]:
    """Cut recordings into windows.

    Args:
      recordings: recordings of noise.
      sample_rate: sample rate of the cuts; other rates are resampled when read.
      window: seconds of a cut.
      min_duration: windows that are not longer than this many seconds are left out,
      keep_short: except recordings that are shorter than a window themselves.
    """
    cuts: List["Cut"] = []
    for recording in recordings:
        if recording.sampling_rate != sample_rate:
            recording = recording.resample(sample_rate)
        start = 0.0
        while start < recording.duration:
            length = min(window, recording.duration - start)
            if length > min_duration or (start == 0.0 and keep_short):
                name = f"{recording.id}-{len(cuts)}"
                cuts.append(MonoCut(name, start, round(length, 4), 0, recording=recording))
            start += window
    return cuts


def listed_recordings(manifests: Sequence[PathLike]) -> Iterator[Recording]:
    """Yield the recordings of manifests.

    Raises:
      UserError: a manifest is missing.
    """
    for path in manifests:
        if not Path(path).is_file():
            raise UserError(f"no such manifest of noise: {path}; run prepare.sh from stage 2")
        yield from RecordingSet.from_file(path)


def found_recordings(folder: PathLike) -> Iterator[Recording]:
    """Yield the recordings in a folder and its subfolders; those that cannot be read are left out.

    Raises:
      UserError: the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder of noise: {folder}")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES):
        name = "-".join(path.relative_to(folder).with_suffix("").parts)
        try:
            yield Recording.from_file(path.resolve(), recording_id=name)
        except Exception as e:  # lhotse's readers raise many kinds
            logging.warning("left out %s: %s", path, type(e).__name__)


def write_noise_cuts(
    target: PathLike,
    *,
    folder: PathLike = "",
    manifests: Sequence[PathLike] = (),
    sample_rate: int = 16000,
    window: float = 10.0,
    min_duration: float = 5.0,
    keep_short: bool = True,
) -> None:
    """Write a manifest of noise, from ``manifests`` of recordings or else from a ``folder``.

    Args:
      target: manifest to write.
      folder: folder of recordings, searched with all its subfolders.
      manifests: manifests of recordings.
      sample_rate, window, min_duration, keep_short: see :func:`noise_windows`.

    Raises:
      UserError: the folder or a manifest is missing, or there is no usable noise in it.
    """
    recordings = listed_recordings(manifests) if manifests else found_recordings(folder)
    cuts = noise_windows(
        recordings, sample_rate, window=window, min_duration=min_duration, keep_short=keep_short
    )
    if not cuts:
        source = ", ".join(map(str, manifests)) or folder
        raise UserError(f"no usable noise ({', '.join(sorted(_SUFFIXES))}) in {source}")
    write_cuts(cuts, target)
    logging.info("%s: %d cuts, %.2f hours", target, len(cuts), sum(c.duration for c in cuts) / 3600)

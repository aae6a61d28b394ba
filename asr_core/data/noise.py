"""Cuts of noise, in windows of some seconds, from a folder of recordings or from manifests."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, List, Sequence, Tuple

from lhotse import MonoCut, Recording

from asr_core.data.audio import is_text, read_audio
from asr_core.data.cut_audio import CUSTOM_FIELD
from asr_core.data.left_out import note_left_out, refuse_losses
from asr_core.data.manifest import iterate_recordings, write_cuts
from asr_core.data.options import FIRST, LOUDEST, MIX
from asr_core.data.patience import patiently
from asr_core.data.preparation_options import NoiseOptions
from asr_core.data.read_errors import short_reason
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut

_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}


def noise_windows(recordings: Iterable[Recording], opts: NoiseOptions) -> List["Cut"]:
    """Cut recordings into windows.

    Windows that are not longer than ``opts.min_duration`` are left out, but with
    ``opts.keep_short`` not those of recordings that are shorter than a window themselves.
    Recordings without the channel that the options number are left out.
    """
    number = 0 if opts.channel in (FIRST, MIX, LOUDEST) else int(opts.channel)
    cuts: List["Cut"] = []
    for recording in recordings:
        if number >= recording.num_channels:
            logging.warning("left out %s: no channel %d, counted from 0", recording.id, number)
            continue
        # which channel is the loudest may differ from window to window: it is seen when one is read
        several = recording.num_channels > 1 and opts.channel in (MIX, LOUDEST)
        custom = {CUSTOM_FIELD: opts.channel} if several else None
        if recording.sampling_rate != opts.sample_rate:
            recording = recording.resample(opts.sample_rate)
        start = 0.0
        while start < recording.duration:
            length = min(opts.window, recording.duration - start)
            if length > opts.min_duration or (start == 0.0 and opts.keep_short):
                name = f"{recording.id}-{len(cuts)}"
                window = MonoCut(name, start, round(length, 4), number, recording=recording, custom=custom)
                cuts.append(window)
            start += opts.window
    return cuts


def listed_recordings(manifests: Sequence[PathLike], allow_commands: bool = False) -> Iterator[Recording]:
    """Yield the recordings of manifests.

    Raises:
      UserError: a manifest is missing or damaged.
    """
    for path in manifests:
        if not Path(path).is_file():
            raise UserError(f"no such manifest of noise: {path}; run prepare.sh from stage 2")
        yield from iterate_recordings(path, allow_commands)


def found_recordings(folder: PathLike, max_unreadable: float = 1.0) -> Tuple[List[Recording], List[str]]:
    """Find the recordings in a folder and its subfolders.

    Args:
      folder: the folder.
      max_unreadable: share of them that may be left out because they cannot be read.

    Returns:
      (recordings, a line about each that is left out).

    Raises:
      UserError: the folder is missing, or too few can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder of noise: {folder}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    found: List[Recording] = []
    left_out: List[str] = []
    for path in paths:
        name = "-".join(path.relative_to(folder).with_suffix("").parts)
        if not is_text(str(path.resolve())):
            logging.warning(
                "left out %s: no manifest can have its name, which is not UTF-8", os.fsencode(path)
            )
            continue
        try:
            found.append(_recording(path, name))
        except UserError as e:
            left_out.append(str(e))
        except Exception as e:  # lhotse's readers raise many kinds
            left_out.append(f"{path}: {short_reason(e)}")
    for line in left_out:
        logging.warning("left out %s", line)
    refuse_losses(folder, left_out, len(paths), max_unreadable)
    return found, left_out


def _recording(path: Path, name: str) -> Recording:
    # noise that cannot be read would take cuts of training with it
    patiently(partial(read_audio, path), lambda: [str(path)])
    return Recording.from_file(path.resolve(), recording_id=name)


def write_noise_cuts(opts: NoiseOptions) -> None:
    """Write a manifest of noise, from manifests of recordings or else from a folder.

    What is left out of a folder is listed beside it, see :mod:`asr_core.data.left_out`.

    Raises:
      UserError: the folder or a manifest is missing, or there is no usable noise in it, or too
        little.
    """
    found: Iterable[Recording]
    left_out: List[str] = []
    if opts.recordings:
        found = listed_recordings(opts.recordings, opts.allow_commands)
    else:
        found, left_out = found_recordings(opts.noise_dir, opts.max_unreadable)
    cuts = noise_windows(found, opts)
    if not cuts:
        source = ", ".join(opts.recordings) or opts.noise_dir
        raise UserError(f"no usable noise ({', '.join(sorted(_SUFFIXES))}) in {source}")
    write_cuts(cuts, opts.output)
    note_left_out(opts.output, left_out)
    hours = sum(cut.duration for cut in cuts) / 3600
    logging.info("%s: %d cuts, %.2f hours, %d left out", opts.output, len(cuts), hours, len(left_out))

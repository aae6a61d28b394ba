"""Waiting for disks and network shares that go away for a moment, before data count as lost.

A file that is missing or damaged costs no waiting. What counts is a folder that is missing or
empty, as where a share is not mounted, and errors of the disk or network. Each process waits in
vain at most once in ten minutes, so that wrong paths cost seconds, however many they are.
"""

import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Optional, TypeVar

if TYPE_CHECKING:
    from lhotse.cut import Cut

PAUSES = (0.5, 1.0, 2.0, 3.0, 3.5)  # seconds before each new try: 10 in all
_AFTER_VAIN = 600.0  # seconds without any waiting after a time that was in vain

_AWAY = {
    getattr(errno, name)
    for name in (
        "EIO",
        "EREMOTEIO",
        "ESTALE",
        "ETIMEDOUT",
        "ENOTCONN",
        "ECONNRESET",
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENXIO",
        "ENODEV",
    )
    if hasattr(errno, name)
}
_MISSING = {errno.ENOENT, errno.ENOTDIR}

T = TypeVar("T")


class _Waits:
    """When this process has last waited in vain, in seconds of a clock that only goes on."""

    def __init__(self) -> None:
        self.vain = -float("inf")


_waits = _Waits()


def patiently(read: Callable[[], T], files: Callable[[], Iterable[str]]) -> T:
    """Return what ``read`` returns; try again for some seconds if its disk or share is away.

    Args:
      read: reads something, from the beginning each time.
      files: returns the paths of the files that it reads; called when it fails.

    Raises:
      What ``read`` raises, of its last try.
    """
    try:
        return read()
    except Exception as e:  # the readers raise many kinds
        away = _away(e, files())
        if not away or time.monotonic() < _waits.vain + _AFTER_VAIN:
            raise
    logging.warning("%s: waiting up to %g s for a disk or network to come back", away, sum(PAUSES))
    for pause in PAUSES:
        time.sleep(pause)
        try:
            return read()
        except Exception as e:
            if not _away(e, files()):
                return read()  # it came back after this try, or something else is wrong
    _waits.vain = time.monotonic()
    return read()


def sources_of(cut: "Cut", stored: bool) -> Iterator[str]:
    """Yield the paths of the files that a cut is read from, those of its noise included.

    Args:
      cut: the cut.
      stored: whether its stored features are meant; otherwise its audio.
    """
    for part in [track.cut for track in getattr(cut, "tracks", ())] or [cut]:
        features, recording = getattr(part, "features", None), getattr(part, "recording", None)
        if stored and features is not None and features.storage_path:
            apart = features.storage_type.endswith("_files")  # each matrix is a file named by its key
            path = str(features.storage_path)
            yield os.path.join(path, features.storage_key) if apart else path
        elif not stored and recording is not None:
            yield from (str(source.source) for source in recording.sources if source.type == "file")


def _away(e: BaseException, files: Iterable[str]) -> str:
    """Return what is away, or "": the fault is of one file."""
    cause: Optional[BaseException] = e
    for _ in range(10):  # a chain may be a circle
        if isinstance(cause, OSError) and cause.errno in _AWAY:
            return f"{cause.filename or next(iter(files), '')}: {cause.strerror}"
        cause = cause and (cause.__cause__ or cause.__context__)
    return next(filter(None, map(_gone, files)), "")


def _gone(path: str) -> str:
    """Return what is away of the place of a file; "" if the file is there, or misses alone."""
    try:
        os.stat(path)
        return ""
    except OSError as e:
        if e.errno not in _MISSING:
            return f"{path}: {e.strerror}" if e.errno in _AWAY else ""
    folder = os.path.dirname(path) or "."
    try:
        with os.scandir(folder) as entries:
            return "" if next(entries, None) else f"{folder} is empty"
    except OSError as e:
        return f"{folder}: {e.strerror}" if e.errno in _AWAY | _MISSING else ""

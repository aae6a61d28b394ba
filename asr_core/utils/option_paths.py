"""Options that are paths: what must be there before a program does any work."""

import enum
import os
import stat
from pathlib import Path

from asr_core.utils.errors import UserError


class PathKind(enum.Enum):
    """What an option's path is.

    Attributes:
      FILE: a file to read, which is not empty.
      FOLDER: a folder to read.
      EITHER: a file to read, or a folder.
      PLACE: a folder that is made if it is missing.
      OUTPUT: a file to write.
    """

    FILE = "file"
    FOLDER = "folder"
    EITHER = "file or folder"
    PLACE = "place"
    OUTPUT = "output"


def check_path(option: str, path: str, kind: PathKind) -> None:
    """Check that a path is of its kind.

    Args:
      option: for messages, e.g. ``"--lang-dir"``.
      path: the user's value.
      kind: what the program does with it.

    Raises:
      UserError: it is missing, of another kind, empty, or cannot be made.
    """
    if not path.strip():
        raise UserError(f"{option} must not be empty")
    if "\0" in path:
        raise UserError(f"{option} {path!r} is no path")
    if kind in (PathKind.PLACE, PathKind.OUTPUT):
        _check_target(option, Path(path), kind)
        return
    try:
        mode, size = os.stat(path).st_mode, os.stat(path).st_size
    except OSError as e:
        raise UserError(f"{option}: cannot read {path}: {e.strerror}") from e
    if stat.S_ISDIR(mode):
        if kind is PathKind.FILE:
            raise UserError(f"{option}: {path} is a folder, not a file")
    elif kind is PathKind.FOLDER:
        raise UserError(f"{option}: {path} is a file, not a folder")
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise UserError(f"{option}: {path} is a device, not a file")
    elif stat.S_ISREG(mode) and not size:
        raise UserError(f"{option}: {path} is empty")


def _check_target(option: str, path: Path, kind: PathKind) -> None:
    """Check that a file or folder can be made, or written to."""
    if kind is PathKind.OUTPUT and path.is_dir():
        raise UserError(f"{option}: {path} is a folder, not a file")
    folder = path if kind is PathKind.PLACE else path.parent
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as e:
        raise UserError(f"{option}: cannot make {path}: {e.strerror}") from e
    if not folder.is_dir():
        raise UserError(f"{option}: {folder} is a file, not a folder")

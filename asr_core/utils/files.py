"""Reading files that may be compressed, and writing files whole or not at all."""

import contextlib
import errno
import gzip
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, Iterator, cast

from asr_core.utils.errors import UserError
from asr_core.utils.lock import check_output
from asr_core.utils.paths import PathLike
from asr_core.utils.processes import writer_is_dead, writer_tag

_TAG = re.compile(r"\.(\d+-\d+-[0-9a-f]{8})\.[^.]*\.tmp")
_LEFT_SECONDS = 3600.0


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` when the block ends without an error.

    When the block raises, the temporary file is removed and ``path`` stays as it was.

    The temporary name keeps the suffix of ``path``, because many writers choose their format by it.
    A device or a pipe, such as ``/dev/null``, is written to and never replaced.

    Raises:
      UserError: ``path`` is a folder, the disk is full, the folder cannot be made, it may not be
        written to, or this process has lost the lock of the folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"cannot write {path}: {os.strerror(errno.EISDIR)}")
    special = path.exists() and not path.is_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(
            prefix=f".{path.stem[:80]}.{writer_tag()}.",
            suffix=f".tmp{''.join(path.suffixes[-2:])}",
            dir=None if special else path.parent,
        )
        os.close(fd)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e
    tmp = Path(name)
    try:
        yield tmp
        if special:
            with open(tmp, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        else:
            _sync(tmp)
            os.chmod(tmp, 0o666 & ~_umask())
            check_output(path)  # after the time that writing took, just before the file appears
            os.replace(tmp, path)
    except OSError as e:
        raise UserError(_explain(path, e)) from e
    except RuntimeError as e:  # torch.save reports a full disk as a RuntimeError of its zip writer
        if _disk_is_full(path.parent) or "file write failed" in str(e) or "unexpected pos" in str(e):
            raise UserError(_full(path)) from e
        raise
    finally:
        with contextlib.suppress(OSError):
            tmp.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of :func:`atomic_path` whose writers were killed.

    Where it cannot be known whether a writer lives, because it ran on another machine, the file
    stays until it has not changed for an hour.
    """
    for path in folder.glob(".*.tmp*"):
        tag = _TAG.search(path.name)
        dead = writer_is_dead(tag[1]) if tag else None
        with contextlib.suppress(OSError):
            if dead or (dead is None and time.time() - path.lstat().st_mtime > _LEFT_SECONDS):
                path.unlink()


def digest_of(path: PathLike) -> str:
    """Return a digest of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_binary(path: PathLike) -> BinaryIO:
    """Open a file to read its bytes; uncompress it if its name ends in ``.gz``."""
    path = Path(path)
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else open(path, "rb")


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` whole or not at all."""
    with atomic_path(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_bytes_atomic(path: PathLike, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all."""
    with atomic_path(path) as tmp:
        tmp.write_bytes(content)


def _sync(path: Path) -> None:
    with open(path, "rb+") as f:
        os.fsync(f.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _disk_is_full(folder: Path) -> bool:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize < (1 << 20)


def _full(path: Path) -> str:
    return (
        f"no space left on the disk while writing {path}; the earlier file is untouched: "
        "free some space and start the same command again"
    )


def _explain(path: Path, e: OSError) -> str:
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    return f"cannot write {path}: {e.strerror or e}"

"""Locks of folders and of single outputs, so that two programs do not write the same files.

A lock is a file that names its holder, ``.lock`` in a folder, or ``.NAME.lock`` beside the output
NAME, which may be a folder that takes no foreign files. It is made by a hard link or exclusive
creation, which network file systems do atomically too. Its holder touches it every 15 s. A lock is
taken over at once if its holder ran on this machine and has ended, and otherwise after 2 minutes
without a sign of life. A holder that was suspended, and lost its lock meanwhile, notices when it
checks, which it does before it writes.
"""

import contextlib
import json
import logging
import os
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, Optional, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike
from asr_core.utils.processes import ProcessId, process_id

_NAME = ".lock"
_HEARTBEAT_SECONDS = 15.0
_SILENCE_SECONDS = 120.0  # after which a holder on another machine counts as dead
_PATIENCE_SECONDS = 10.0  # for a holder that is about to end
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
      token: unique to this lock.
      purpose: what the process does, in words.
      since: when it took the lock, in seconds since 1970.
      process: the process.
    """

    token: str
    purpose: str
    since: float
    process: ProcessId

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.purpose}, process {self.process.pid} on {self.process.host}, since {since}"


class FolderLock:
    """The lock of a folder, or of one output in it.

    Args:
      folder: the folder, which is created.
      purpose: what the holder does, in words, for messages of others.
      advice: what the user can do if another process holds it, besides waiting.
      holder: the process that holds it; None: this one.
      output: name of the output; empty: the whole folder.

    Attributes:
      what: what is locked.
      path: the lock's file.
    """

    def __init__(
        self,
        folder: PathLike,
        purpose: str,
        advice: str,
        holder: Optional[ProcessId] = None,
        output: str = "",
    ) -> None:
        self.folder = Path(folder)
        self.what = self.folder / output
        self.path = self.folder / (f".{output}{_NAME}" if output else _NAME)
        self.advice = advice
        self.pid = os.getpid()
        self.me = Holder(uuid.uuid4().hex, purpose, time.time(), holder or process_id())
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
          UserError: another process holds it, or the folder cannot be written to.
        """
        mine = self.path.with_name(f"{self.path.name}.{self.me.token}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot create the folder {self.folder}: {e.strerror or e}") from e
        try:
            mine.write_text(json.dumps(asdict(self.me)), encoding="utf-8")
            try:
                waiting = _Waiting(self, mine)
                while not self._link(mine):
                    waiting.look()
            finally:
                mine.unlink()
        except OSError as e:
            raise UserError(f"cannot write into {self.folder}: {e.strerror or e}") from e

    def beat_in_background(self) -> None:
        """Show signs of life from a thread."""

        def beat() -> None:
            while not self._ended.wait(_HEARTBEAT_SECONDS):
                self.beat()

        threading.Thread(target=beat, daemon=True, name=f"lock of {self.what}").start()

    def beat(self) -> None:
        """Show a sign of life, unless the lock is lost."""
        if self._is_mine():
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _is_mine(self) -> bool:
        found = read_holder(self.path)
        return found is not None and found.token == self.me.token

    def _link(self, mine: Path) -> bool:
        """Make the lock unless there is one; return whether this was done."""
        try:
            os.link(mine, self.path)
            return True
        except FileExistsError:
            return mine.stat().st_nlink == 2  # where a network lost the answer
        except OSError:  # a file system without links
            try:
                with open(self.path, "x", encoding="utf-8") as f:
                    f.write(mine.read_text(encoding="utf-8"))
                return True
            except FileExistsError:
                return False

    def take_from(self, dead: Optional[Holder], aside: Path) -> None:
        """Remove the lock of a dead holder, unless another process did so in the meantime."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
            found = read_holder(aside)
            if found is not None and dead is not None and found.token != dead.token:
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()

    def check(self) -> None:
        """Check that the lock is still held, before anything is written.

        Raises:
          UserError: another process has taken it over.
        """
        for wait in (0.0, _POLL_SECONDS):  # another process may look at the lock's file just now
            time.sleep(wait)
            if self._is_mine():
                return
        found = read_holder(self.path)
        other = f"taken over by {found}" if found else "removed"
        raise UserError(
            f"the lock of {self.what} was {other}, while this process was suspended or cut off: it ends "
            "here and writes nothing more"
        )

    def release(self) -> None:
        """Give the lock back, if it is still held."""
        self._ended.set()
        if self._is_mine():
            with contextlib.suppress(OSError):
                self.path.unlink()


class _Waiting:
    """Watches the lock of another process until it can be taken over.

    Args:
      lock: the lock that is wanted.
      mine: a file of this process in the folder, by which the file system tells its time.
    """

    def __init__(self, lock: FolderLock, mine: Path) -> None:
        self.lock = lock
        self.mine = mine
        self._seen: Optional[Tuple[Optional[Holder], int]] = None
        self._since = time.monotonic()

    def look(self) -> None:
        """Take the lock from a dead holder, or wait a little.

        Raises:
          UserError: its holder is alive.
        """
        holder = read_holder(self.lock.path)
        try:
            touched = self.lock.path.stat().st_mtime_ns
        except FileNotFoundError:
            return
        alive = holder.process.is_alive() if holder else None
        first = self._seen is None
        beaten = self._seen is not None and self._seen != (holder, touched)
        self._seen = (holder, touched)
        waited = time.monotonic() - self._since
        os.utime(self.mine)
        silent = max(waited, (self.mine.stat().st_mtime_ns - touched) / 1e9)
        if alive is False or (alive is None and silent > _SILENCE_SECONDS):
            logging.info("%s: the lock of %s is taken over, it has ended", self.lock.what, holder)
            self.lock.take_from(holder, self.mine.with_suffix(".aside"))
        elif (alive and waited > _PATIENCE_SECONDS) or (alive is None and beaten):
            self._refuse(holder)
        else:
            if first:
                logging.info("%s is in use by %s: waiting", self.lock.what, holder or "another process")
            time.sleep(_POLL_SECONDS)

    def _refuse(self, holder: Optional[Holder]) -> None:
        stopped = holder is not None and holder.process.is_stopped()
        what = "it is suspended: let it go on, or end it" if stopped else "wait for its end, or end it"
        raise UserError(
            f"{self.lock.what} is in use by {holder or 'another process'}: {what}, or {self.lock.advice}"
        )


def read_holder(path: Path) -> Optional[Holder]:
    """Return who holds the lock in file ``path``; None if it is missing or says nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**{**content, "process": ProcessId(**content["process"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


_held: Dict[str, FolderLock] = {}  # the locks of this process, by the real paths of what they lock


@contextlib.contextmanager
def hold_folder(folder: PathLike, purpose: str, advice: str) -> Iterator[None]:
    """Return a context in which this process holds the lock of a folder, once for all inner ones.

    Arguments as of :class:`FolderLock`.

    Raises:
      UserError: another process holds it, or the folder cannot be written to.
    """
    with _hold(FolderLock(folder, purpose, advice)):
        yield


@contextlib.contextmanager
def hold_output(path: PathLike, purpose: str, advice: str) -> Iterator[None]:
    """Return a context in which this process holds the lock of one file or folder that it writes.

    The lock is beside it, in the folder of ``path``, which is created, and removed again if nothing
    is written there; a device needs none. Other arguments and errors as of :func:`hold_folder`.
    """
    path = Path(path) if Path(path).name not in ("", "..") else Path(path).resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    try:
        with _hold(FolderLock(path.parent, purpose, advice, output=path.name)):
            yield
    finally:
        with contextlib.suppress(OSError):  # the first that holds something stays, with those around it
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _hold(lock: FolderLock) -> Iterator[None]:
    if _own_lock(lock.what) is not None:
        yield
        return
    lock.acquire()
    lock.beat_in_background()
    key = os.path.realpath(lock.what)
    _held[key] = lock
    try:
        yield
    finally:
        del _held[key]
        lock.release()


def keep_for_script(folder: PathLike, pid: int, advice: str) -> None:
    """Take the lock of a folder for a shell script, and keep it in a process of its own.

    Args:
      folder: the folder, which is created.
      pid: the script's process; the lock is given back when it ends.
      advice: see :class:`FolderLock`.

    Raises:
      UserError: another process holds it, or the folder cannot be written to.
    """
    script = process_id(pid)
    lock = FolderLock(folder, "preparation", advice, script)
    lock.acquire()
    if os.fork():
        return
    os.setsid()
    void = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(void, fd)
    beaten = time.monotonic()
    while script.is_alive() and lock.path.exists():
        time.sleep(_POLL_SECONDS)
        if time.monotonic() - beaten > _HEARTBEAT_SECONDS:
            beaten = time.monotonic()
            lock.beat()
    lock.release()
    os._exit(0)


def main(folder: str, pid: str) -> None:
    """Run :func:`keep_for_script` for prepare.sh, as a program that it starts."""
    try:
        keep_for_script(folder, int(pid), "choose another --data-dir")
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)


def check_folder(folder: PathLike) -> None:
    """Check that this process has not lost the lock of a folder or file, if it took it.

    Raises:
      UserError: it has.
    """
    lock = _own_lock(folder)
    if lock is not None:
        lock.check()


def check_output(path: PathLike) -> None:
    """Check that this process has not lost a lock of the file ``path`` or of its folder.

    Raises:
      UserError: it has.
    """
    check_folder(path)
    check_folder(Path(path).parent)


def _own_lock(what: PathLike) -> Optional[FolderLock]:
    lock = _held.get(os.path.realpath(what))
    return lock if lock is not None and lock.pid == os.getpid() else None  # not in a forked process

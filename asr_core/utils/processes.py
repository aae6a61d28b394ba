"""Identity of processes across machines, and whether one is still alive."""

import contextlib
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from later ones with the same number.

    Attributes:
      host: name of its machine, for messages.
      space: what its number is valid in: one boot of a machine, one container.
      pid: its number.
      start: when it started, in the kernel's units; 0 if unknown.
    """

    host: str
    space: str
    pid: int
    start: int

    def is_alive(self) -> Optional[bool]:
        """Return whether the process exists; None if it cannot be known from here."""
        if self.space != _space():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it belongs to another user
            pass
        return _state(self.pid) not in ("Z", "X") and start_of(self.pid) == self.start

    def is_stopped(self) -> bool:
        """Return whether the process is suspended, as by Ctrl-Z."""
        return self.space == _space() and _state(self.pid) in ("T", "t")


def process_id(pid: int = 0) -> ProcessId:
    """Return the identity of a process of this machine; 0: of this one."""
    pid = pid or os.getpid()
    return ProcessId(socket.gethostname(), _space(), pid, start_of(pid))


def start_of(pid: int) -> int:
    """Return when a process started, or 0 if the system does not tell."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def writer_tag() -> str:
    """Return a short form of this process' identity for names of temporary files."""
    me = process_id()
    return f"{me.pid}-{me.start}-{_short(me.space)}"


def writer_is_dead(tag: str) -> Optional[bool]:
    """Return whether the process of a :func:`writer_tag` has ended; None if it cannot be known."""
    pid, start, space = tag.split("-")
    if space != _short(_space()):
        return None
    return not ProcessId("", _space(), int(pid), int(start)).is_alive()


def _short(space: str) -> str:
    return hashlib.sha256(space.encode()).hexdigest()[:8]


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> "list[str]":
    """Return the fields of /proc/<pid>/stat from the third on; empty if there are none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _space() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)

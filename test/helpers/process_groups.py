"""The processes of a program that has a process group of its own."""

import contextlib
import time
from pathlib import Path


def group_of(process):
    """Return the ids of the live processes in the process group of ``process``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == process.pid and state != "Z":
                found.append(int(path.parent.name))
    return found


def wait_until(condition, seconds=10.0):
    """Wait until ``condition()`` is true; fail after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)

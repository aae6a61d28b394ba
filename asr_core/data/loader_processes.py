"""Loading in processes of which one may be killed, for instance because memory ran out."""

import signal
import threading
from multiprocessing import connection
from typing import Iterator

from torch.utils.data import DataLoader

from asr_core.data.batch import Batch
from asr_core.utils.errors import ProcessLost


def in_processes(loader: "DataLoader[Batch]", advice: str) -> Iterator[Batch]:
    """Iterate over a loader, so that the death of one of its processes is an error between batches.

    torch would raise from a signal handler, in the middle of whatever the program does then.

    Args:
      loader: the loader, with processes or without.
      advice: what makes it need less memory, for messages.

    Raises:
      ProcessLost: a process was killed; within some seconds.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    batches = iter(loader)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as e:  # the last two while it takes a batch from a dead one
            if not _one_has_died(batches):
                raise
            why = _why(batches, advice)
            _kill(batches)
            raise ProcessLost(why) from e
        yield batch


def _one_has_died(batches: Iterator[Batch]) -> bool:
    """Return whether a process has died; its connections may have ended a moment before."""
    workers = getattr(batches, "_workers", ())
    ended = connection.wait([process.sentinel for process in workers], timeout=1.0)
    for process in workers:
        if process.sentinel in ended:
            process.join(timeout=1.0)
    return any(process.exitcode for process in workers)


def _kill(batches: Iterator[Batch]) -> None:
    """End the other processes, which may wait forever for what the dead one held."""
    for process in getattr(batches, "_workers", ()):
        process.kill()
        process.join()


def _why(batches: Iterator[Batch], advice: str) -> str:
    codes = [process.exitcode for process in getattr(batches, "_workers", ())]
    code = next((code for code in codes if code), 0)
    if code == -signal.SIGKILL:
        return f"a loader process was killed, as the system does when memory runs out: {advice}"
    if code == -getattr(signal, "SIGBUS", 0):
        return f"a loader process had no more shared memory (/dev/shm): enlarge it, or {advice}"
    how = f"by {signal.Signals(-code).name}" if code and code < 0 else "unexpectedly"
    return f"a loader process ended {how}: {advice}, or find the cause with --num-workers 0"

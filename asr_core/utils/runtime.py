"""Process settings that make CPU work fast; called by programs, never at import."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time

from asr_core.utils.option_values import MAX_PROCESSES
from asr_core.utils.options import option

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def keep_memory() -> bool:
    """Make glibc's malloc keep freed memory instead of returning it to the kernel.

    Each activation of a training step is freed in the backward pass. By default its memory goes
    back to the kernel, and the next step pays a page fault for every 4 KiB of it.

    Returns:
      Whether it was done (only on Linux with glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # No separate block for large tensors; never trim the heap; let it grow by 64 MiB at a time.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in settings)


def share_cores() -> None:
    """Shorten the busy waiting of torch's threads; call this before importing torch.

    libgomp's threads spin for some milliseconds before they sleep. Beside another busy process they
    thereby take the cores from threads that have work, which makes both ten times slower. Spinning
    for some microseconds bridges most gaps as well. Environment variables that the user has set
    win.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def die_with_parent(signum: int) -> None:
    """Ask the kernel to send ``signum`` to this process when its parent ends (Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signum))


def end_with_parent(parent: int, grace: float) -> None:
    """End this process, by SIGTERM, when process ``parent`` ends, and kill it if it does not end.

    Args:
      parent: the process that started this one.
      grace: seconds between the two.
    """
    die_with_parent(signal.SIGTERM)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if not sys.platform.startswith("linux"):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch of the parent").start()


def num_threads_option() -> int:
    """Declare ``--num-threads``, the field ``num_threads`` of the options of a program."""
    return option(
        0,
        "CPU threads of tensor operations; 0 takes all cores that this process may use",
        at_least=0,
        at_most=MAX_PROCESSES,
    )


def setup_cpu(num_threads: int = 0, processes: int = 1) -> None:
    """Prepare this process for CPU work: memory kept, denormals flushed, threads set.

    Args:
      num_threads: threads of tensor operations; 0: this process' share of the cores it may use.
      processes: number of processes that share those cores.
    """
    # oneDNN caches code and buffers for the last 1024 shapes. Every training batch has a new shape,
    # so the cache only costs and fragments memory; the few shapes of a stream still fit into 64.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    import torch

    keep_memory()
    torch.set_flush_denormal(True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = num_threads or max(1, cores // processes)
    torch.set_num_threads(threads)
    logging.debug("%d CPU threads", threads)

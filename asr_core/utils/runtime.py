"""Settings of the process that make CPU work fast; called by programs, never at import."""

import ctypes
import logging
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def keep_memory() -> bool:
    """Tell glibc's malloc to keep freed memory instead of handing it back to the kernel after each large tensor.

    Every activation of a training step is freed in its backward; with glibc's defaults each goes back to the kernel and the
    next step pays a page fault for every 4 KiB of it. Returns whether it was done (Linux with glibc only).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return (
        bool(mallopt(_M_MMAP_MAX, 0))
        and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
        and bool(mallopt(_M_TOP_PAD, 64 << 20))
    )


def share_cores() -> None:
    """Let the threads of tensor operations wait politely; to be called before torch is imported.

    libgomp's threads look out for work for some milliseconds before they sleep. Beside another busy process they so take the cores
    from those that have work, which makes both ten times slower; a look of some microseconds bridges most gaps as well. What the
    user has set stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def die_with_parent(signum: int) -> None:
    """Let the kernel send ``signum`` to this process when the one that started it ends, however it ends (Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signum))


def setup_cpu(num_threads: int = 0, processes: int = 1) -> None:
    """Prepare this process for CPU work: memory kept, denormals flushed, threads set.

    Args:
      num_threads: threads of tensor operations; 0: this process' share of the cores that it may use.
      processes: how many share those cores.
    """
    # oneDNN keeps code and buffers for the last 1024 shapes it met. Every training batch has a new one, so that costs memory and
    # leaves holes in it, and gains nothing; a stream's few shapes still fit in.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    import torch

    keep_memory()
    torch.set_flush_denormal(True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = num_threads or max(1, cores // processes)
    torch.set_num_threads(threads)
    logging.debug("%d CPU threads", threads)

"""Settings of the process that make CPU work fast; called by programs, never at import."""

import ctypes
import logging
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


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
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(_M_TOP_PAD, 64 << 20))


def setup_cpu(num_threads: int = 0) -> None:
    """Prepare this process for CPU work: memory kept, denormals flushed, ``num_threads`` threads (0: all cores allowed)."""
    # oneDNN keeps code and buffers for the last 1024 shapes it met. Every training batch has a new one, so that costs memory and
    # leaves holes in it, and gains nothing; a stream's few shapes still fit in.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    import torch

    keep_memory()
    torch.set_flush_denormal(True)
    threads = num_threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (num_threads or os.cpu_count() or 1)
    torch.set_num_threads(threads)
    logging.debug("%d CPU threads", threads)

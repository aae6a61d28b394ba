"""Conditions under which a fused CPU kernel may replace the plain torch form.

The kernels need numba, which is optional: modules that use them import them at their top, under
``if HAS_NUMBA``.
"""

import functools
import os
from typing import Optional

import torch
from torch import Tensor

try:
    import numba  # noqa: F401

    HAS_NUMBA = True
except ImportError:
    HAS_NUMBA = False


@functools.lru_cache(maxsize=None)
def available() -> bool:
    """Return whether numba can be imported and ``ASR_CORE_CPU_KERNELS`` is not 0."""
    return HAS_NUMBA and os.environ.get("ASR_CORE_CPU_KERNELS", "1") != "0"


def usable(*tensors: Optional[Tensor]) -> bool:
    """Return whether all ``tensors`` (None allowed) are float32 on the CPU and the kernels are
    available.

    A compiler that traces the program gives tensors without data.
    """
    return (
        not torch.compiler.is_compiling()
        and all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu") for t in tensors)
        and available()
    )


def like(x: Tensor, reference: Tensor) -> Tensor:
    """Return ``x`` laid out in memory as ``reference`` is (``reference`` dense), so that one index
    works for both.
    """
    return x if x.stride() == reference.stride() else torch.empty_like(reference).copy_(x)


def dense(x: Tensor) -> Tensor:
    """Return ``x`` itself where its elements fill memory without gaps (contiguous or channels
    last), else a contiguous copy.
    """
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def rows_of(x: Tensor, channel_dim: int) -> Optional[Tensor]:
    """Return a view of ``x`` with the channels innermost, (R, C), or None where memory is not laid
    out so.
    """
    last = x.movedim(channel_dim, -1)
    return last.reshape(-1, last.shape[-1]) if last.is_contiguous() else None

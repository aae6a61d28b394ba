"""Whether kernels will run, for the tensors of a tracer.

A module of its own: marking a function for torch's compiler imports the compiler, and triton with
it.
"""

from typing import Optional

import torch
from torch import Tensor

from asr_core.ops.gpu.dispatch import DTYPES, available


def will_run(*tensors: Optional[Tensor]) -> bool:
    """Return what :func:`asr_core.ops.gpu.dispatch.usable` would return for ``tensors`` (None
    allowed) on GPUs that have no data yet.
    """
    for t in tensors:
        if t is not None and (t.dtype not in DTYPES or not t.is_cuda):
            return False
    return _will_be_available()


@torch.compiler.assume_constant_result
def _will_be_available() -> bool:
    return available()

"""The gated linear unit of convolution modules."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced

gpu_kernels = gpu.deferred("gate")


class _Gate(torch.autograd.Function):
    """Keeps only its input (T, N, 2 C) and the mask (T, N)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, pad_mask)
        return gpu_kernels.gate_forward(x, pad_mask)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Tensor, None]:
        x, pad_mask = ctx.saved_tensors
        return gpu_kernels.gate_backward(x, dy, pad_mask), None


def gate_plain(x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
    """Return :func:`gate` by torch's own operations (for scripting and tracing); (T, N, C)."""
    y = F.glu(x, dim=2)
    return y if pad_mask is None else y.masked_fill(pad_mask.unsqueeze(2), 0.0)


def gate(x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
    """Multiply the first half of the channels by the sigmoid of the second.

    A compiler needs no operator here: of torch's operations it makes one pass itself.

    Args:
      x: (T, N, 2 C).
      pad_mask: (T, N) boolean, True at padding, where the result is zero; or None.

    Returns:
      (T, N, C)
    """
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return gate_plain(x, pad_mask)
    if gpu.usable(x) and not is_traced():
        return _Gate.apply(x, pad_mask)
    return gate_plain(x, pad_mask)

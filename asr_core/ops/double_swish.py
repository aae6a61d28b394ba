"""The activation DoubleSwish, ``x sigmoid(x - 1)``, which keeps only its input for the backward
pass.

It is close to Swish applied twice (icefall's pruned_transducer_stateless2), hence its name.
"""

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, dense, like, usable

if HAS_NUMBA:
    from asr_core.ops.cpu import activations as kernels


class _DoubleSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        x = dense(x)
        ctx.save_for_backward(x)
        if not usable(x):
            return torch.sigmoid(x - 1.0).mul_(x)
        y = torch.empty_like(x)
        kernels.double_swish_forward(x.numel(), kernels.GRAIN, kernels.Forward(x, y))
        return y

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dy = like(dy, x)
        if usable(x, dy):
            dx = torch.empty_like(x)
            kernels.double_swish_backward(x.numel(), kernels.GRAIN, kernels.Backward(x, dy, dx))
            return dx
        s = torch.sigmoid(x - 1.0)
        return torch.addcmul(s, x * s, 1.0 - s).mul_(dy)


def double_swish(x: Tensor) -> Tensor:
    """Apply ``x sigmoid(x - 1)`` to each element; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return x * torch.sigmoid(x - 1.0)
    return _DoubleSwish.apply(x)

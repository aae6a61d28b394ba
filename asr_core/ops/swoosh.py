"""The two Swoosh activations of Zipformer (Yao et al. 2023, section 3.4)."""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.cpu.dispatch import dense, like, usable

# name -> (offset, constant) of log(1 + exp(x - offset)) - 0.08 x - constant
SWOOSH = {"SwooshL": (4.0, 0.035), "SwooshR": (1.0, 0.313261687)}


def swoosh_forward(x: Tensor, offset: float, constant: float) -> Tensor:
    """``log(1 + exp(x - offset)) - 0.08 x - constant``, without autograd; ``x`` dense, the result laid out like it."""
    if usable(x):
        from asr_core.ops.cpu import activations

        y = torch.empty_like(x)
        activations.swoosh_forward(x.numel(), activations.GRAIN, [x, y], [offset, constant])
        return y
    return F.softplus(x - offset).sub_(x, alpha=0.08).sub_(constant)


def swoosh_backward(x: Tensor, dy: Tensor, offset: float) -> Tensor:
    """Gradient of the input where ``dy`` is that of :func:`swoosh_forward`'s output; ``x`` dense, the result laid out like it."""
    dy = like(dy, x)
    if usable(x, dy):
        from asr_core.ops.cpu import activations

        dx = torch.empty_like(x)
        activations.swoosh_backward(x.numel(), activations.GRAIN, [x, dy, dx], [offset])
        return dx
    return torch.sigmoid(x - offset).sub_(0.08).mul_(dy)


class _Swoosh(torch.autograd.Function):
    """Keeps only its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: float, constant: float) -> Tensor:
        x = dense(x)
        ctx.save_for_backward(x)
        ctx.offset = offset
        return swoosh_forward(x, offset, constant)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return swoosh_backward(x, dy, ctx.offset), None, None


def swoosh_l(x: Tensor) -> Tensor:
    """``log(1 + exp(x - 4)) - 0.08 x - 0.035``, elementwise; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return F.softplus(x - 4.0) - 0.08 * x - 0.035
    return _Swoosh.apply(x, *SWOOSH["SwooshL"])


def swoosh_r(x: Tensor) -> Tensor:
    """``log(1 + exp(x - 1)) - 0.08 x - 0.313261687``, elementwise; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return F.softplus(x - 1.0) - 0.08 * x - 0.313261687
    return _Swoosh.apply(x, *SWOOSH["SwooshR"])

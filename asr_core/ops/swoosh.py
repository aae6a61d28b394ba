"""The activations SwooshL and SwooshR of Zipformer (Yao et al. 2023, section 3.4).

Both are ``log(1 + exp(x - offset)) - 0.08 x - constant``. Swish saturates at zero for very negative
inputs, where a unit gets no gradient any more and stays dead. Here the slope far to the left is
-0.08, small but never zero, so every unit can come back.

- SwooshR (offset 1) passes through the origin: its constant 0.313261687 is log(1 + 1 / e). It
  stands in convolutions and in the front end, and behaves like Swish near zero.
- SwooshL (offset 4) bends further to the right: a unit is off unless its input is large. It stands
  where most units should be off (feed-forward modules, ConvNeXt). Its constant 0.035 makes the
  value at zero nearly 0 (-0.017).
"""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, dense, like, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, like_first, operator
from asr_core.ops.slopes import (
    SWOOSH_SCALE,
    encode,
    is_coded,
    keep_codes,
    slope_backward,
    slope_backward_operator,
    with_codes,
)

gpu_kernels = gpu.deferred("activations")
if HAS_NUMBA:
    from asr_core.ops.cpu import activations as kernels

# name -> (offset, constant) of log(1 + exp(x - offset)) - 0.08 x - constant
SWOOSH = {"SwooshL": (4.0, 0.035), "SwooshR": (1.0, 0.313261687)}


def swoosh_plain(x: Tensor, offset: float, constant: float) -> Tensor:
    """Apply the formula in torch's own operations (for scripting and tracing); any shape."""
    return F.softplus(x - offset) - 0.08 * x - constant


def swoosh_forward(x: Tensor, offset: float, constant: float) -> Tensor:
    """Apply the formula without autograd to a dense ``x`` (N, ..., C).

    The result is laid out like it.
    """
    if gpu.usable(x):
        return gpu_kernels.swoosh_forward(x, offset, constant)
    if usable(x):
        y = torch.empty_like(x)
        args = kernels.SwooshForward(x, 0, y, M=1, offset=offset, constant=constant)
        kernels.swoosh_forward(x.numel(), kernels.GRAIN, args)
        return y
    return F.softplus(x - offset).sub_(x, alpha=0.08).sub_(constant)


def swoosh_backward(x: Tensor, dy: Tensor, offset: float) -> Tensor:
    """Return the gradient of the input (N, ..., C) of :func:`swoosh_forward`, laid out like the
    dense ``x``.

    Args:
      x: (N, ..., C), the input.
      dy: (N, ..., C), the gradient of the output.
      offset: offset of the activation.
    """
    dy = like(dy, x)
    if gpu.usable(x, dy):
        return gpu_kernels.swoosh_backward(x, dy, offset)
    if usable(x, dy):
        dx = torch.empty_like(x)
        kernels.swoosh_backward(x.numel(), kernels.GRAIN, kernels.SwooshBackward(x, dy, dx, offset=offset))
        return dx
    return torch.sigmoid(x - offset).sub_(0.08).mul_(dy)


def swoosh_and_codes(x: Tensor, offset: float, constant: float) -> Tuple[Tensor, Tensor]:
    """Return what :func:`swoosh_forward` does, and the codes of its slopes (N, ..., C), bytes."""
    if gpu.usable(x):
        step, zero = SWOOSH_SCALE
        return gpu_kernels.swoosh_and_codes(x, offset, constant, 1.0 / step, zero)
    codes = encode(torch.sigmoid(x - offset).sub_(0.08), x, SWOOSH_SCALE)
    return swoosh_forward(x, offset, constant), codes


class _Swoosh(torch.autograd.Function):
    """Keeps its input, or in half precision on a GPU the slope in one byte per element.

    Often nothing else needs the input: what follows keeps the output, and a convolution or linear
    map before keeps its own input.
    """

    @staticmethod
    def forward(ctx: Context, x: Tensor, offset: float, constant: float) -> Tensor:
        x = dense(x)
        ctx.offset = offset
        if is_coded(x) and ctx.needs_input_grad[0]:
            y, codes = swoosh_and_codes(x, offset, constant)
            ctx.save_for_backward(codes)
            return y
        ctx.save_for_backward(x)
        return swoosh_forward(x, offset, constant)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        if kept.dtype == torch.uint8:
            return slope_backward(kept, like(dy, kept), SWOOSH_SCALE), None, None
        return swoosh_backward(kept, dy, ctx.offset), None, None


def _keep(ctx: Context, inputs: Tuple[Tensor, float, float], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.offset = inputs[1]


def _gradient(ctx: Context, dy: Tensor) -> Tuple[Tensor, None, None]:
    return _swoosh_backward_operator(ctx.saved_tensors[0], dy, ctx.offset), None, None


@operator("swoosh_backward", like_first)
def _swoosh_backward_operator(x: Tensor, dy: Tensor, offset: float) -> Tensor:
    return swoosh_backward(dense(x), dy, offset)


@operator("swoosh", like_first, _gradient, _keep)
def _swoosh_operator(x: Tensor, offset: float, constant: float) -> Tensor:
    return swoosh_forward(dense(x), offset, constant)


def _gradient_of_codes(ctx: Context, dy: Tensor, _: object) -> Tuple[Tensor, None, None]:
    return slope_backward_operator(ctx.saved_tensors[0], dy, *SWOOSH_SCALE), None, None


@operator("swoosh_and_codes", with_codes, _gradient_of_codes, keep_codes)
def _swoosh_and_codes_operator(x: Tensor, offset: float, constant: float) -> Tuple[Tensor, Tensor]:
    return swoosh_and_codes(dense(x), offset, constant)


def _swoosh(x: Tensor, activation: str) -> Tensor:
    offset, constant = SWOOSH[activation]
    if not is_traced():
        return _Swoosh.apply(x, offset, constant)
    if is_exported():
        return swoosh_plain(x, offset, constant)
    if x.requires_grad and torch.is_grad_enabled() and is_coded(x):
        return _swoosh_and_codes_operator(x, offset, constant)[0]
    return _swoosh_operator(x, offset, constant)


def swoosh_l(x: Tensor) -> Tensor:
    """Apply ``log(1 + exp(x - 4)) - 0.08 x - 0.035`` to each element; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return swoosh_plain(x, 4.0, 0.035)
    return _swoosh(x, "SwooshL")


def swoosh_r(x: Tensor) -> Tensor:
    """Apply ``log(1 + exp(x - 1)) - 0.08 x - 0.313261687`` to each element; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return swoosh_plain(x, 1.0, 0.313261687)
    return _swoosh(x, "SwooshR")

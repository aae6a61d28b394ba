"""The activation DoubleSwish, ``x sigmoid(x - 1)``, which keeps only its input for the backward
pass, or in half precision on a GPU its slope in one byte per element.

It is close to Swish applied twice (icefall's pruned_transducer_stateless2), hence its name.
"""

from typing import Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, dense, like, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, like_first, operator
from asr_core.ops.slopes import (
    DOUBLE_SWISH_SCALE,
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


def double_swish_plain(x: Tensor) -> Tensor:
    """Apply the formula in torch's own operations (for scripting and tracing); any shape."""
    return x * torch.sigmoid(x - 1.0)


def _slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x - 1.0)
    return torch.addcmul(s, x * s, 1.0 - s)


def _forward(x: Tensor) -> Tensor:
    """Apply the formula without autograd to a dense x (...)."""
    if gpu.usable(x):
        return gpu_kernels.double_swish_forward(x)
    if usable(x):
        y = torch.empty_like(x)
        kernels.double_swish_forward(x.numel(), kernels.GRAIN, kernels.Forward(x, y))
        return y
    return torch.sigmoid(x - 1.0).mul_(x)


def _forward_and_codes(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Apply the formula to a dense x (...); return the codes of its slopes (...), bytes, too."""
    if gpu.usable(x):
        step, zero = DOUBLE_SWISH_SCALE
        return gpu_kernels.double_swish_and_codes(x, 1.0 / step, zero)
    return _forward(x), encode(_slope(x), x, DOUBLE_SWISH_SCALE)


def _backward(x: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of a dense x (...) from that of the result, laid out like it."""
    dy = like(dy, x)
    if gpu.usable(x, dy):
        return gpu_kernels.double_swish_backward(x, dy)
    if usable(x, dy):
        dx = torch.empty_like(x)
        kernels.double_swish_backward(x.numel(), kernels.GRAIN, kernels.Backward(x, dy, dx))
        return dx
    return _slope(x).mul_(dy)


class _DoubleSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        x = dense(x)
        if is_coded(x) and ctx.needs_input_grad[0]:
            y, codes = _forward_and_codes(x)
            ctx.save_for_backward(codes)
            return y
        ctx.save_for_backward(x)
        return _forward(x)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        if kept.dtype == torch.uint8:
            return slope_backward(kept, like(dy, kept), DOUBLE_SWISH_SCALE)
        return _backward(kept, dy)


def _keep(ctx: Context, inputs: Tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _gradient(ctx: Context, dy: Tensor) -> Tensor:
    return _backward_operator(ctx.saved_tensors[0], dy)


def _gradient_of_codes(ctx: Context, dy: Tensor, _: object) -> Tensor:
    return slope_backward_operator(ctx.saved_tensors[0], dy, *DOUBLE_SWISH_SCALE)


@operator("double_swish_backward", like_first)
def _backward_operator(x: Tensor, dy: Tensor) -> Tensor:
    return _backward(dense(x), dy)


@operator("double_swish", like_first, _gradient, _keep)
def _operator(x: Tensor) -> Tensor:
    return _forward(dense(x))


@operator("double_swish_and_codes", with_codes, _gradient_of_codes, keep_codes)
def _operator_with_codes(x: Tensor) -> Tuple[Tensor, Tensor]:
    return _forward_and_codes(dense(x))


def double_swish(x: Tensor) -> Tensor:
    """Apply ``x sigmoid(x - 1)`` to each element; any shape."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return double_swish_plain(x)
    if not is_traced():
        return _DoubleSwish.apply(x)
    if is_exported():
        return double_swish_plain(x)
    coded = x.requires_grad and torch.is_grad_enabled() and is_coded(x)
    return _operator_with_codes(x)[0] if coded else _operator(x)

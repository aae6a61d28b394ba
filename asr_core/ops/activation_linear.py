"""Swoosh, dropout and a linear map in one operation that keeps only its input for the backward
pass.

The activation is as wide as the input; computing it again takes less time than keeping it takes
memory (Yao et al. 2023, section 3.4).
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, operator
from asr_core.ops.swoosh import SWOOSH, swoosh_forward, swoosh_plain

gpu_kernels = gpu.deferred("activations")
if HAS_NUMBA:
    from asr_core.ops.cpu import activations as kernels


def _shares_rows(mask: Tensor, x: Tensor) -> bool:
    """Return whether ``mask`` (1, ...) is the same for every index of the first axis of ``x`` (N,
    ...), as the kernels want it.
    """
    return mask.is_contiguous() and mask.shape[0] == 1 and mask.shape[1:] == x.shape[1:]


def _activate(x: Tensor, activation: str, mask: Optional[Tensor]) -> Tensor:
    """Return ``swoosh(x) * mask`` (N, ..., C)."""
    offset, constant = SWOOSH[activation]
    if mask is None:
        return swoosh_forward(x, offset, constant)
    if gpu.usable(x, mask) and _shares_rows(mask, x):
        return gpu_kernels.swoosh_masked(x, mask, offset, constant)
    if usable(x, mask) and _shares_rows(mask, x):
        y, size = torch.empty_like(x), mask.numel()
        args = kernels.SwooshForward(x, mask, y, M=size, offset=offset, constant=constant)
        kernels.swoosh_forward(x.shape[0], max(1, kernels.GRAIN // size), args)
        return y
    return swoosh_forward(x, offset, constant).mul_(mask)


def _activate_and_differentiate(
    x: Tensor, dy: Tensor, activation: str, mask: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """Compute ``swoosh(x) * mask`` again and the gradient of ``x``, (N, ..., C) both.

    Args:
      x: (N, ..., C), contiguous.
      dy: (N, ..., C), the gradient of ``swoosh(x) * mask``; may be overwritten.
      activation: a key of SWOOSH.
      mask: broadcasts with ``x``, or None.
    """
    offset, constant = SWOOSH[activation]
    fits = mask is None or _shares_rows(mask, x)
    if fits and gpu.usable(x, dy, mask):
        return gpu_kernels.swoosh_both(x, dy.contiguous(), mask, offset, constant)
    if fits and usable(x, dy, mask):
        y, dx = torch.empty_like(x), torch.empty_like(x)
        size = x.shape[-1] if mask is None else mask.numel()
        args = kernels.SwooshBoth(
            x, dy.contiguous(), 0 if mask is None else mask, y, dx, M=size, offset=offset, constant=constant
        )
        kernels.swoosh_both(x.numel() // size, max(1, kernels.GRAIN // size), args)
        return y, dx
    y = _activate(x, activation, mask)
    slope = torch.sigmoid(x - offset).sub_(0.08)
    return y, dy.mul_(slope if mask is None else slope.mul_(mask))


def _forward(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], activation: str, mask: Optional[Tensor]
) -> Tensor:
    """Return ``linear(swoosh(x) * mask)`` (..., C_out) of a contiguous x (..., C_in)."""
    return F.linear(_activate(x, activation, mask), weight, bias)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, activation: str, mask: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """Return the gradients of x (..., C_in), contiguous, and of weight (C_out, C_in) from that of
    the result, (..., C_out).
    """
    y, dx = _activate_and_differentiate(x, torch.matmul(grad, weight), activation, mask)
    rows = grad.reshape(-1, grad.shape[-1])  # (R, C_out)
    return dx, torch.matmul(rows.t(), y.reshape(-1, y.shape[-1]))


def _bias_gradient(ctx: Context, grad: Tensor) -> Optional[Tensor]:
    return grad.reshape(-1, grad.shape[-1]).sum(dim=0) if ctx.needs_input_grad[2] else None


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        activation: str,
        mask: Optional[Tensor],
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, mask)
        ctx.activation = activation
        return _forward(x, weight, bias, activation, mask)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, mask = ctx.saved_tensors
        dx, dweight = _backward(grad, x, weight, ctx.activation, mask)
        return dx, dweight, _bias_gradient(ctx, grad), None, None


def _like_output(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _like_gradients(grad: Tensor, x: Tensor, weight: Tensor, *_: object) -> Tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep(ctx: Context, inputs: Tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.activation, mask = inputs
    ctx.save_for_backward(x, weight, mask)


def _gradient(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
    x, weight, mask = ctx.saved_tensors
    dx, dweight = _backward_operator(grad, x, weight, ctx.activation, mask)
    return dx, dweight, _bias_gradient(ctx, grad), None, None


@operator("activation_linear_backward", _like_gradients)
def _backward_operator(
    grad: Tensor, x: Tensor, weight: Tensor, activation: str, mask: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    return _backward(grad, x.contiguous(), weight, activation, mask)


@operator("activation_linear", _like_output, _gradient, _keep)
def _operator(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], activation: str, mask: Optional[Tensor]
) -> Tensor:
    return _forward(x.contiguous(), weight, bias, activation, mask)


def activation_linear(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], activation: str, mask: Optional[Tensor] = None
) -> Tensor:
    """Return ``linear(swoosh(x) * mask)``.

    Args:
      x: (..., C_in).
      weight: (C_out, C_in).
      bias: (C_out,) or None.
      activation: "SwooshL" or "SwooshR".
      mask: scaled dropout mask that broadcasts with ``x``, or None.

    Returns:
      (..., C_out)
    """
    device = x.device.type
    if torch.is_autocast_enabled(
        device
    ):  # as autocast treats a linear map; the backward pass then sees one type
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
        bias, mask = (None if t is None else t.to(dtype) for t in (bias, mask))
    if not is_traced():
        return _ActivationLinear.apply(x, weight, bias, activation, mask)
    if is_exported():
        y = swoosh_plain(x, *SWOOSH[activation])
        return F.linear(y if mask is None else y * mask, weight, bias)
    return _operator(x, weight, bias, activation, mask)

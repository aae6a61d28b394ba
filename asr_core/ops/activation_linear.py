"""Swoosh, dropout and a linear map in one operation that keeps only its input for the backward
pass.

The activation is as wide as the input; computing it again takes less time than keeping it takes
memory (Yao et al. 2023, section 3.4).
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable
from asr_core.ops.swoosh import SWOOSH, swoosh_forward

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
      x: (N, ..., C).
      dy: (N, ..., C), the gradient of ``swoosh(x) * mask``; may be overwritten.
      activation: a key of SWOOSH.
      mask: broadcasts with ``x``, or None.
    """
    offset, constant = SWOOSH[activation]
    if usable(x, dy, mask) and (mask is None or _shares_rows(mask, x)):
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
        return F.linear(_activate(x, activation, mask), weight, bias)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, mask = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])  # (R, C_out)
        y, dx = _activate_and_differentiate(x, torch.matmul(grad, weight), ctx.activation, mask)
        dweight = torch.matmul(rows.t(), y.reshape(-1, y.shape[-1]))  # (C_out, C_in)
        dbias = rows.sum(dim=0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, None, None


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
    return _ActivationLinear.apply(x, weight, bias, activation, mask)

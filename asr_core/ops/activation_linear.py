"""Swoosh, dropout and a linear map in one operation that keeps only its input for the backward pass."""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.cpu.dispatch import usable
from asr_core.ops.swoosh import SWOOSH, swoosh_forward


def _shares_rows(mask: Optional[Tensor], x: Tensor) -> bool:
    """Whether ``mask`` (1, ...) is the same for every index of the first axis of ``x``, as the kernels want it."""
    return mask is None or (mask.is_contiguous() and mask.shape[0] == 1 and mask.shape[1:] == x.shape[1:])


def _activate(x: Tensor, activation: str, mask: Optional[Tensor]) -> Tensor:
    """``swoosh(x) * mask``."""
    offset, constant = SWOOSH[activation]
    if mask is None:
        return swoosh_forward(x, offset, constant)
    if usable(x, mask) and _shares_rows(mask, x):
        from asr_core.ops.cpu import activations

        y, size = torch.empty_like(x), mask.numel()
        activations.swoosh_masked_forward(
            x.shape[0], max(1, activations.GRAIN // size), [x, mask, y, size], [offset, constant]
        )
        return y
    return swoosh_forward(x, offset, constant).mul_(mask)


def _activate_and_differentiate(
    x: Tensor, dy: Tensor, activation: str, mask: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """``swoosh(x) * mask`` again and the gradient of ``x`` where ``dy`` is that of the result; ``dy`` may be overwritten."""
    offset, constant = SWOOSH[activation]
    if usable(x, dy, mask) and _shares_rows(mask, x):
        from asr_core.ops.cpu import activations

        y, dy, dx = torch.empty_like(x), dy.contiguous(), torch.empty_like(x)
        if mask is None:
            activations.swoosh_both(x.numel(), activations.GRAIN, [x, dy, y, dx], [offset, constant])
        else:
            args = [x, dy, mask, y, dx, mask.numel()]
            activations.swoosh_masked_both(
                x.shape[0], max(1, activations.GRAIN // mask.numel()), args, [offset, constant]
            )
        return y, dx
    y = _activate(x, activation, mask)
    slope = torch.sigmoid(x - offset).sub_(0.08)
    return y, dy.mul_(slope if mask is None else slope.mul_(mask))


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor], activation: str, mask: Optional[Tensor]
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, mask)
        ctx.activation = activation
        return F.linear(_activate(x, activation, mask), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, mask = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        y, dx = _activate_and_differentiate(x, torch.matmul(grad, weight), ctx.activation, mask)
        dweight = torch.matmul(rows.t(), y.reshape(-1, y.shape[-1]))
        dbias = rows.sum(dim=0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, None, None


def activation_linear(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], activation: str, mask: Optional[Tensor] = None
) -> Tensor:
    """``linear(swoosh(x) * mask)``.

    Args:
      x: (..., C_in).
      weight: (C_out, C_in).
      bias: (C_out,) or None.
      activation: "SwooshL" or "SwooshR".
      mask: scaled dropout mask that broadcasts with ``x``, or None.

    Returns:
      (..., C_out)
    """
    if torch.is_autocast_enabled(
        x.device.type
    ):  # as autocast does for a linear map; the backward pass then sees one type
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias, mask = (None if t is None else t.to(dtype) for t in (bias, mask))
    return _ActivationLinear.apply(x, weight, bias, activation, mask)

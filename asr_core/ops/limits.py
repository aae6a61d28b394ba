"""Identities whose gradient keeps values within soft limits."""

from typing import Any, Tuple

import torch
from torch import Tensor


class _LimitValue(torch.autograd.Function):
    """Turns the gradient around where a step would carry an element further out of [low, high]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = (low, high)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.limits
        outward = ((grad > 0) & (x < low)) | ((grad < 0) & (x > high))
        return torch.where(outward, -grad, grad), None, None


def limit_value(x: Tensor, low: float, high: float) -> Tensor:
    """Return ``x``; its gradient changes sign for elements outside ``[low, high]`` that it would push further out."""
    return _LimitValue.apply(x, low, high)


class _PenalizeLarge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, penalty: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.args = (limit, penalty)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        limit, penalty = ctx.args
        return grad + penalty * (x.sign() * (x.abs() > limit)).to(grad.dtype), None, None


def penalize_large(x: Tensor, limit: float, penalty: float) -> Tensor:
    """Return ``x``; its gradient gets that of ``penalty * sum(max(|x| - limit, 0))``."""
    return _PenalizeLarge.apply(x, limit, penalty)


class _ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None]:
        return grad * ctx.alpha, None


def scale_grad(x: Tensor, alpha: float) -> Tensor:
    """Return ``x``; its gradient is multiplied by ``alpha``."""
    return _ScaleGrad.apply(x, alpha)

"""Identities whose gradient keeps values within soft limits."""

import functools
from typing import Callable, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced

gpu_kernels = gpu.deferred("limits")

_Rule = Callable[[Tensor, Tensor], Tensor]  # gradient and x -> the gradient to hand on


class _ChangeGradient(torch.autograd.Function):
    """Identity whose gradient is changed by a rule that sees the value, too."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, rule: _Rule) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.rule(grad, x), None


def limit_value(x: Tensor, low: float, high: float) -> Tensor:
    """Return ``x``.

    Its gradient changes sign for elements outside ``[low, high]`` that it would push further out.
    """
    return _ChangeGradient.apply(x, functools.partial(_turn_outward, low=low, high=high))


def _turn_outward(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Negate the gradient where a step against it would carry ``x`` further out of ``[low,
    high]``.
    """
    if not is_traced() and gpu.usable(grad, x):
        return gpu_kernels.turn_outward(grad.contiguous(), x.contiguous(), low, high)
    outward = ((grad > 0) & (x < low)) | ((grad < 0) & (x > high))
    return torch.where(outward, -grad, grad)


def penalize_large(x: Tensor, limit: float, penalty: float) -> Tensor:
    """Return ``x``, whose gradient gets that of ``penalty * sum(max(|x| - limit, 0))``."""
    return _ChangeGradient.apply(x, functools.partial(_push_inward, limit=limit, penalty=penalty))


def _push_inward(grad: Tensor, x: Tensor, limit: float, penalty: float) -> Tensor:
    """Add ``penalty`` times the sign of the elements beyond the limit."""
    return grad + penalty * (x.sign() * (x.abs() > limit)).to(grad.dtype)


class _ScaleGrad(torch.autograd.Function):
    """Identity that scales the gradient, and keeps nothing."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None]:
        return grad * ctx.alpha, None


def scale_grad(x: Tensor, alpha: float) -> Tensor:
    """Return ``x``, whose gradient is multiplied by ``alpha``."""
    return _ScaleGrad.apply(x, alpha)

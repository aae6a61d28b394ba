"""BasicNorm: division by the root mean square, with a learned epsilon (icefall's first Zipformer
and its reworked Conformer).

LayerNorm removes the length of a vector, which a network may need (to show that a frame is silence,
say). A large epsilon lets some of it through; it is learned as a logarithm, so that it stays
positive.
"""

from typing import Any, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, operator

gpu_kernels = gpu.deferred("norms")


def basic_norm_plain(x: Tensor, log_eps: Tensor) -> Tensor:
    """Apply the formula of :func:`basic_norm` to x (..., C) in plain operations (for scripting and
    tracing).
    """
    return x * (torch.mean(x * x, dim=-1, keepdim=True) + log_eps.exp()) ** -0.5


def _wide(log_eps: Tensor) -> torch.dtype:
    """Return the type to compute in."""
    return torch.promote_types(log_eps.dtype, torch.float32)


def _forward(x: Tensor, log_eps: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the result of :func:`basic_norm` for a contiguous x (..., C), and the factor of each
    row, (...).
    """
    if gpu.usable(x, log_eps) and gpu_kernels.fits(x):
        return gpu_kernels.forward(x, None, log_eps)
    xf = x.to(_wide(log_eps))
    norm = torch.linalg.vector_norm(xf, dim=-1)
    factor = norm.square_().div_(x.shape[-1]).add_(log_eps.exp()).rsqrt_()
    return (xf * factor.unsqueeze(-1)).to(x.dtype), factor


def _backward(grad: Tensor, x: Tensor, log_eps: Tensor, factor: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the gradients of a contiguous x (..., C) and of log_eps, ().

    Args:
      grad: (..., C), the gradient of the result of :func:`basic_norm`.
      x, log_eps: its arguments.
      factor: (...), see :func:`_forward`.
    """
    if gpu.usable(x, grad, log_eps) and gpu_kernels.fits(x):
        dx, _, dlog_eps = gpu_kernels.backward(x, grad.contiguous(), None, log_eps, factor)
        return dx, dlog_eps.to(log_eps.dtype)
    grad, xf, factor = grad.to(_wide(log_eps)), x.to(_wide(log_eps)), factor.unsqueeze(-1)
    pull = torch.linalg.vecdot(grad, xf).unsqueeze(-1) * factor.pow(3)  # -2 d loss / d (mean square)
    dx = torch.addcmul(xf * (pull / -x.shape[-1]), grad, factor)
    return dx.to(x.dtype), (pull.sum() * log_eps.exp() * -0.5).to(log_eps.dtype)


class _BasicNorm(torch.autograd.Function):
    """Keeps x (..., C) and one factor per row, (...)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, log_eps: Tensor) -> Tensor:
        x = x.contiguous()
        y, factor = _forward(x, log_eps)
        ctx.save_for_backward(x, log_eps, factor)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, Tensor]:
        return _backward(grad, *ctx.saved_tensors)


def _like_forward(x: Tensor, log_eps: Tensor) -> Tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), log_eps.new_empty(x.shape[:-1], dtype=_wide(log_eps))


def _like_backward(grad: Tensor, x: Tensor, log_eps: Tensor, factor: Tensor) -> Tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(log_eps)


def _keep(ctx: Context, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _gradient(ctx: Context, grad: Tensor, _: object) -> Tuple[Tensor, Tensor]:
    return _backward_operator(grad, *ctx.saved_tensors)


@operator("basic_norm_backward", _like_backward)
def _backward_operator(grad: Tensor, x: Tensor, log_eps: Tensor, factor: Tensor) -> Tuple[Tensor, Tensor]:
    return _backward(grad, x.contiguous(), log_eps, factor)


@operator("basic_norm", _like_forward, _gradient, _keep)
def _operator(x: Tensor, log_eps: Tensor) -> Tuple[Tensor, Tensor]:
    return _forward(x.contiguous(), log_eps)


def basic_norm(x: Tensor, log_eps: Tensor) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + exp(log_eps))``, the mean over the last axis.

    Args:
      x: (..., C).
      log_eps: scalar.

    Returns:
      (..., C)
    """
    if not is_traced():
        return _BasicNorm.apply(x, log_eps)
    if is_exported():
        return basic_norm_plain(x, log_eps)
    return _operator(x, log_eps)[0]

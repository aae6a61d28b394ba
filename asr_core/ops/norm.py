"""BiasNorm (Yao et al. 2023, section 3.3).

LayerNorm removes the length of a vector, so networks learn to spend a channel on a large constant
that keeps some of it. Here a learned bias takes the place of that constant, and takes part in the
length alone: ``x / rms(x - bias) * exp(log_scale)``. The scale is learned as a logarithm, so that
it cannot change its sign, where its gradient would reverse.
"""

import math
from typing import Any, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, operator

gpu_kernels = gpu.deferred("norms")
if HAS_NUMBA:
    from asr_core.ops.cpu import rows as kernels

_GRAIN = 16384  # elements worth a thread


def bias_norm_plain(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """Apply the formula of :func:`bias_norm` to x (..., C) in plain operations (for scripting and
    tracing).
    """
    scales = torch.mean((x - bias) ** 2, dim=-1, keepdim=True) ** -0.5 * log_scale.exp()
    return x * scales


def _wide(bias: Tensor) -> torch.dtype:
    """Return the type to compute in."""
    return torch.promote_types(bias.dtype, torch.float32)


def _forward(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the result of :func:`bias_norm` for a contiguous x (..., C), and one over the root
    mean square of each row, (...).
    """
    if gpu.usable(x, bias, log_scale) and gpu_kernels.fits(x):
        return gpu_kernels.forward(x, bias, log_scale)
    if usable(x, bias, log_scale):
        y, inv_rms = torch.empty_like(x), x.new_empty(x.shape[:-1])
        channels, scale = x.shape[-1], math.exp(float(log_scale))
        args = kernels.BiasNormForward(x, bias, y, inv_rms, C=channels, scale=scale)
        kernels.bias_norm_forward(inv_rms.numel(), max(1, _GRAIN // channels), args)
        return y, inv_rms
    diff = x.to(_wide(bias)) - bias
    inv_rms = torch.linalg.vector_norm(diff, dim=-1).reciprocal_().mul_(x.shape[-1] ** 0.5)
    return (x * (inv_rms * log_scale.exp()).unsqueeze(-1)).to(x.dtype), inv_rms


def _backward(
    grad: Tensor, x: Tensor, bias: Tensor, log_scale: Tensor, inv_rms: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a contiguous x (..., C), of bias (C,) and of log_scale, ().

    Args:
      grad: (..., C), the gradient of the result of :func:`bias_norm`.
      x, bias, log_scale: its arguments.
      inv_rms: (...), see :func:`_forward`.
    """
    if gpu.usable(x, grad, bias, log_scale) and gpu_kernels.fits(x):
        dx, dbias, dscale = gpu_kernels.backward(x, grad.contiguous(), bias, log_scale, inv_rms)
        return dx, dbias.to(bias.dtype), dscale.to(log_scale.dtype)
    if usable(x, grad, bias, log_scale):
        return _backward_on_cpu(grad.contiguous(), x, bias, math.exp(float(log_scale)), inv_rms)
    grad, xf, inv_rms = grad.to(_wide(bias)), x.to(_wide(bias)), inv_rms.unsqueeze(-1)
    scales = inv_rms * log_scale.exp()
    along = (grad * xf).sum(dim=-1, keepdim=True) * scales
    pull = (xf - bias) * (along * inv_rms.square() / x.shape[-1])
    dx = torch.addcmul(-pull, grad, scales).to(x.dtype)
    return dx, pull.flatten(0, -2).sum(dim=0).to(bias.dtype), along.sum().to(log_scale.dtype)


def _backward_on_cpu(
    grad: Tensor, x: Tensor, bias: Tensor, scale: float, inv_rms: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    """Do what :func:`_backward` does by the fused kernel, in one pass over x (..., C)."""
    channels, num_rows = x.shape[-1], inv_rms.numel()
    parts = -(-num_rows // kernels.PART)
    dx, dbias, dscale = torch.empty_like(x), x.new_zeros(parts, channels), x.new_zeros(parts)
    args = kernels.BiasNormBackward(
        x=x,
        dy=grad,
        bias=bias,
        inv_rms=inv_rms,
        dx=dx,
        dbias=dbias,
        dscale=dscale,
        R=num_rows,
        C=channels,
        scale=scale,
    )
    kernels.bias_norm_backward(parts, max(1, _GRAIN // (kernels.PART * channels)), args)
    return dx, dbias.sum(0), dscale.sum()


class _BiasNorm(torch.autograd.Function):
    """Keeps x (..., C) and one scale per row, (...)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        x = x.contiguous()
        y, inv_rms = _forward(x, bias, log_scale)
        ctx.save_for_backward(x, bias, log_scale, inv_rms)
        return y

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        return _backward(grad, *ctx.saved_tensors)


def _like_forward(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), bias.new_empty(x.shape[:-1], dtype=_wide(bias))


def _like_backward(
    grad: Tensor, x: Tensor, bias: Tensor, log_scale: Tensor, inv_rms: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(bias), torch.empty_like(log_scale)


def _keep(ctx: Context, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _gradient(ctx: Context, grad: Tensor, _: object) -> Tuple[Tensor, Tensor, Tensor]:
    return _backward_operator(grad, *ctx.saved_tensors)


@operator("bias_norm_backward", _like_backward)
def _backward_operator(
    grad: Tensor, x: Tensor, bias: Tensor, log_scale: Tensor, inv_rms: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    dx, dbias, dscale = _backward(grad, x.contiguous(), bias, log_scale, inv_rms)
    return dx, dbias.clone(), dscale.clone()  # results of operators share no memory


@operator("bias_norm", _like_forward, _gradient, _keep)
def _operator(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tuple[Tensor, Tensor]:
    return _forward(x.contiguous(), bias, log_scale)


def bias_norm(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """Return ``x / rms(x - bias) * exp(log_scale)``, the rms over the last axis.

    Args:
      x: (..., C).
      bias: (C,).
      log_scale: scalar.

    Returns:
      (..., C)
    """
    if not is_traced():
        return _BiasNorm.apply(x, bias, log_scale)
    if is_exported():
        return bias_norm_plain(x, bias, log_scale)
    return _operator(x, bias, log_scale)[0]

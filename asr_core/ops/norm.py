"""BiasNorm (Yao et al. 2023, section 3.3).

LayerNorm removes the length of a vector, so networks learn to spend a channel on a large constant
that keeps some of it. Here a learned bias takes the place of that constant, and takes part in the
length alone: ``x / rms(x - bias) * exp(log_scale)``. The scale is learned as a logarithm, so that
it cannot change its sign, where its gradient would reverse.
"""

import math
from typing import Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable

if HAS_NUMBA:
    from asr_core.ops.cpu import rows as kernels

_GRAIN = 16384  # elements worth a thread


def bias_norm_plain(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """Apply the formula of :func:`bias_norm` to x (..., C) in plain operations (for scripting and
    tracing).
    """
    scales = torch.mean((x - bias) ** 2, dim=-1, keepdim=True) ** -0.5 * log_scale.exp()
    return x * scales


class _BiasNorm(torch.autograd.Function):
    """Keeps x (..., C) and one scale per row, (..., 1)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        diff = x.to(bias.dtype) - bias
        inv_rms = torch.linalg.vector_norm(diff, dim=-1, keepdim=True).reciprocal_().mul_(x.shape[-1] ** 0.5)
        ctx.save_for_backward(x, bias, log_scale, inv_rms)
        return (x * (inv_rms * log_scale.exp())).to(x.dtype)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        x, bias, log_scale, inv_rms = ctx.saved_tensors
        grad, xf = grad.to(bias.dtype), x.to(bias.dtype)
        scales = inv_rms * log_scale.exp()
        along = (grad * xf).sum(dim=-1, keepdim=True) * scales
        pull = (xf - bias) * (along * inv_rms.square() / x.shape[-1])
        return torch.addcmul(-pull, grad, scales).to(x.dtype), pull.flatten(0, -2).sum(dim=0), along.sum()


class _BiasNormOnCpu(torch.autograd.Function):
    """The same by the fused kernels: one pass over x (..., C) in each direction."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        x, channels, scale = x.contiguous(), x.shape[-1], math.exp(float(log_scale))
        y, inv_rms = torch.empty_like(x), x.new_empty(x.shape[:-1])
        args = kernels.BiasNormForward(x, bias, y, inv_rms, C=channels, scale=scale)
        kernels.bias_norm_forward(inv_rms.numel(), max(1, _GRAIN // channels), args)
        ctx.save_for_backward(x, bias, inv_rms)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        x, bias, inv_rms = ctx.saved_tensors
        channels, num_rows = x.shape[-1], inv_rms.numel()
        parts = -(-num_rows // kernels.PART)
        dx, dbias, dscale = torch.empty_like(x), x.new_zeros(parts, channels), x.new_zeros(parts)
        args = kernels.BiasNormBackward(
            x=x,
            dy=grad.contiguous(),
            bias=bias,
            inv_rms=inv_rms,
            dx=dx,
            dbias=dbias,
            dscale=dscale,
            R=num_rows,
            C=channels,
            scale=ctx.scale,
        )
        kernels.bias_norm_backward(parts, max(1, _GRAIN // (kernels.PART * channels)), args)
        return dx, dbias.sum(0), dscale.sum()


def bias_norm(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """Return ``x / rms(x - bias) * exp(log_scale)``, the rms over the last axis.

    Args:
      x: (..., C).
      bias: (C,).
      log_scale: scalar.

    Returns:
      (..., C)
    """
    if usable(x, bias, log_scale):
        return _BiasNormOnCpu.apply(x, bias, log_scale)
    return _BiasNorm.apply(x, bias, log_scale)

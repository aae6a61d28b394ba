"""BiasNorm (Yao et al. 2023, section 3.3)."""

import math
from typing import Any, Tuple

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import usable


def bias_norm_plain(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """The formula of :func:`bias_norm` in plain operations (for scripting and tracing)."""
    scales = torch.mean((x - bias) ** 2, dim=-1, keepdim=True) ** -0.5 * log_scale.exp()
    return x * scales


class _BiasNorm(torch.autograd.Function):
    """Keeps x and one scale per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        diff = x.to(bias.dtype) - bias
        inv_rms = torch.linalg.vector_norm(diff, dim=-1, keepdim=True).reciprocal_().mul_(x.shape[-1] ** 0.5)
        ctx.save_for_backward(x, bias, log_scale, inv_rms)
        return (x * (inv_rms * log_scale.exp())).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        x, bias, log_scale, inv_rms = ctx.saved_tensors
        grad, xf = grad.to(bias.dtype), x.to(bias.dtype)
        scales = inv_rms * log_scale.exp()
        along = (grad * xf).sum(dim=-1, keepdim=True) * scales
        pull = (xf - bias) * (along * inv_rms.square() / x.shape[-1])
        return torch.addcmul(-pull, grad, scales).to(x.dtype), pull.flatten(0, -2).sum(dim=0), along.sum()


class _BiasNormOnCpu(torch.autograd.Function):
    """The same by the fused kernels: one pass over memory in each direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        from asr_core.ops.cpu import rows

        x, channels, scale = x.contiguous(), x.shape[-1], math.exp(float(log_scale))
        y, inv_rms = torch.empty_like(x), x.new_empty(x.shape[:-1])
        rows.bias_norm_forward(
            inv_rms.numel(), max(1, 16384 // channels), [x, bias, y, inv_rms, channels], [scale]
        )
        ctx.save_for_backward(x, bias, inv_rms)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        from asr_core.ops.cpu import rows

        x, bias, inv_rms = ctx.saved_tensors
        channels, num_rows = x.shape[-1], inv_rms.numel()
        parts = -(-num_rows // rows.PART)
        dx, dbias, dscale = torch.empty_like(x), x.new_zeros(parts, channels), x.new_zeros(parts)
        args = [x, grad.contiguous(), bias, inv_rms, dx, dbias, dscale, num_rows, channels]
        rows.bias_norm_backward(parts, max(1, 16384 // (rows.PART * channels)), args, [ctx.scale])
        return dx, dbias.sum(0), dscale.sum()


def bias_norm(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """``x / rms(x - bias) * exp(log_scale)``, the rms over the last axis.

    Args:
      x: (..., C).
      bias: (C,).
      log_scale: scalar.
    """
    if usable(x, bias, log_scale):
        return _BiasNormOnCpu.apply(x, bias, log_scale)
    return _BiasNorm.apply(x, bias, log_scale)

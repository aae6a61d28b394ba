"""Gradient of the activation balancer (Yao et al. 2023, section 3.4), without nested autograd."""

from typing import Any, Tuple

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import like, rows_of, usable

Bounds = Tuple[float, float, float, float]


def balancer_coefficients(
    mean: Tensor, mean_sq: Tensor, bounds: Bounds, grad_scale: float
) -> Tuple[Tensor, Tensor]:
    """Per-channel ``(a, b)`` such that the normalised gradient of the balancer's loss at ``x`` is ``a + b * x``.

    With m = mean / stddev, r = rms, the loss of a channel is ``|m - clamp(m, m_lo, m_hi)| + |log(clamp(r, r_lo, r_hi) / r)|``;
    both terms are functions of mean and mean square alone, so the gradient is affine in x and its rms has a closed form.

    Args:
      mean: (C,) mean of each channel.
      mean_sq: (C,) mean of squares of each channel.
      bounds: (m_lo, m_hi, r_lo, r_hi).
      grad_scale: rms of the result where a channel is out of its bounds.
    """
    m_lo, m_hi, r_lo, r_hi = bounds
    var = mean_sq - mean * mean
    std = var.clamp(min=1e-20).sqrt()
    m = mean / std
    rms = mean_sq.clamp(min=1e-20).sqrt()
    side_m = (m > m_hi).to(mean.dtype) - (m < m_lo).to(mean.dtype)
    side_r = (rms > r_hi).to(mean.dtype) - (rms < r_lo).to(mean.dtype)
    # d m / d x_i = (1/std - mean * (x_i - mean) / std^3) / n;  d log(rms) / d x_i = x_i / (n * mean_sq)
    slope = torch.where(var > 1e-20, mean / (std * std * std), 0.0)
    b = torch.where(mean_sq > 1e-20, side_r / mean_sq.clamp(min=1e-20), 0.0) - side_m * slope
    a = side_m * (1.0 / std + slope * mean)
    norm = (a * a + 2.0 * a * b * mean + b * b * mean_sq).clamp(min=1e-40).sqrt()
    scale = torch.where((side_m != 0) | (side_r != 0), grad_scale / norm, 0.0)
    return a * scale, b * scale


class _BalanceGradient(torch.autograd.Function):
    """Identity whose gradient pushes channel statistics back into their bounds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.args = (bounds, grad_scale, channel_dim)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return apply_balancer(grad, x, *ctx.args), None, None, None


def apply_balancer(grad: Tensor, x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
    """``grad + |grad| * (a + b * x)`` with the coefficients of :func:`balancer_coefficients` of ``x``; same shape as ``x``."""
    rows = rows_of(x, channel_dim) if usable(x, grad) else None
    if rows is not None:
        return _apply_on_cpu(like(grad, x), x, rows, bounds, grad_scale, channel_dim)
    channel_dim %= x.dim()
    dims = [d for d in range(x.dim()) if d != channel_dim]
    xf = x if x.dtype == torch.float64 else x.float()
    mean = xf.mean(dim=dims)
    mean_sq = xf.square().mean(dim=dims)
    a, b = balancer_coefficients(mean, mean_sq, bounds, grad_scale)
    shape = [-1 if d == channel_dim else 1 for d in range(x.dim())]
    push = torch.addcmul(a.view(shape), xf, b.view(shape))
    return torch.addcmul(grad.to(push.dtype), grad.abs().to(push.dtype), push).to(grad.dtype)


def _apply_on_cpu(
    grad: Tensor, x: Tensor, rows: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int
) -> Tensor:
    """:func:`apply_balancer` by the fused kernels: one pass for the statistics, one for the result."""
    from asr_core.ops.cpu import rows as kernels

    num_rows, channels = rows.shape
    parts = -(-num_rows // 512)  # float32 sums of at most 512 rows, added up in float64
    sums = x.new_zeros(parts, 2, channels)
    kernels.channel_sums(parts, max(1, 16384 // (512 * channels)), [rows, sums, num_rows, channels, parts])
    mean, mean_sq = (sums.double().sum(0) / num_rows).unbind(0)
    a, b = balancer_coefficients(mean, mean_sq, bounds, grad_scale)
    out = torch.empty_like(x)
    kernels.balance(num_rows, max(1, 16384 // channels), [x, grad, out, a.float(), b.float(), channels])
    return out


def balance_gradient(x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
    """Return ``x`` unchanged; in the backward pass add the balancer's gradient.

    Args:
      x: any shape; statistics are taken over all axes but ``channel_dim``.
      bounds: (lowest mean/stddev, highest mean/stddev, lowest rms, highest rms).
      grad_scale: size of what is added, relative to each element's own gradient.
      channel_dim: the axis of channels.
    """
    return _BalanceGradient.apply(x, bounds, grad_scale, channel_dim)

"""Gradient of the activation balancer (Yao et al. 2023, appendix A.2.1), in closed form instead of
by nested autograd.
"""

from typing import Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, like, rows_of, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced, operator

gpu_kernels = gpu.deferred("balancer")
if HAS_NUMBA:
    from asr_core.ops.cpu import rows as kernels

# (lowest mean/stddev, highest mean/stddev, lowest rms, highest rms) of a channel
Bounds = Tuple[float, float, float, float]
# Rows whose float32 sums make one partial sum; the partial sums are added up in float64, so that
# long batches lose no digits.
_PART = 512
_GRAIN = 16384  # elements worth a thread
CONSTANT = 1e-6  # variance at most, relative to the mean square, of a channel without variation


def balancer_coefficients(
    mean: Tensor, mean_sq: Tensor, bounds: Bounds, grad_scale: float
) -> Tuple[Tensor, Tensor]:
    """Return (C,) coefficients ``a, b`` with which the normalised gradient of the balancer's loss
    at ``x`` is ``a + b * x``.

    With m = mean / stddev, r = rms, the loss of a channel is ``|m - clamp(m, m_lo, m_hi)| +
    |log(clamp(r, r_lo, r_hi) / r)|``; both terms are functions of mean and mean square alone, so
    the gradient is affine in x and its rms has a closed form.

    Args:
      mean: (C,) mean of each channel.
      mean_sq: (C,) mean of squares of each channel.
      bounds: (m_lo, m_hi, r_lo, r_hi).
      grad_scale: rms of the result where a channel is out of its bounds.
    """
    m_lo, m_hi, r_lo, r_hi = bounds
    var = mean_sq - mean * mean
    # Of a channel that hardly varies, as in digital silence, a and b would be huge and cancel in
    # a + b * x: what float32 leaves of that blows the gradient up. It counts as constant.
    least = (CONSTANT * mean_sq).clamp(min=1e-20)
    std = torch.maximum(var, least).sqrt()
    m = mean / std
    rms = mean_sq.clamp(min=1e-20).sqrt()
    side_m = (m > m_hi).to(mean.dtype) - (m < m_lo).to(mean.dtype)
    side_r = (rms > r_hi).to(mean.dtype) - (rms < r_lo).to(mean.dtype)
    # d m / d x_i = (1/std - mean * (x_i - mean) / std^3) / n;  d log(rms) / d x_i = x_i / (n *
    # mean_sq)
    slope = torch.where(var > least, mean / (std * std * std), 0.0)
    b = torch.where(mean_sq > 1e-20, side_r / mean_sq.clamp(min=1e-20), 0.0) - side_m * slope
    a = side_m * (1.0 / std + slope * mean)
    norm = (a * a + 2.0 * a * b * mean + b * b * mean_sq).clamp(min=1e-40).sqrt()
    scale = torch.where((side_m != 0) | (side_r != 0), grad_scale / norm, 0.0)
    return a * scale, b * scale


class _BalanceGradient(torch.autograd.Function):
    """Identity whose gradient pushes channel statistics back into their bounds."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds, ctx.grad_scale, ctx.channel_dim = bounds, grad_scale, channel_dim
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return apply_balancer(grad, x, ctx.bounds, ctx.grad_scale, ctx.channel_dim), None, None, None


class _BalanceGradientAsDrawn(torch.autograd.Function):
    """The same, where an operator reads in a table (R, 6) what to do."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, table: Tensor, row: int, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x, table)
        ctx.row, ctx.channel_dim = row, channel_dim
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None, None, None]:
        x, table = ctx.saved_tensors
        return _as_drawn_operator(grad, x, table, ctx.row, ctx.channel_dim), None, None, None


def apply_balancer(grad: Tensor, x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
    """Return ``grad + |grad| * (a + b * x)``, (..., C, ...) like ``x``, with the coefficients of
    :func:`balancer_coefficients`.
    """
    if is_traced():
        return _operator(grad, x, *bounds, grad_scale, channel_dim)
    return _apply(grad, x, bounds, grad_scale, channel_dim)


def _apply(grad: Tensor, x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
    if gpu.usable(x, grad):
        return gpu_kernels.balance(x, grad, channel_dim, bounds, grad_scale, CONSTANT)
    rows = rows_of(x, channel_dim) if usable(x, grad) else None
    if rows is not None:
        return _apply_on_cpu(like(grad, x), x, rows, bounds, grad_scale)
    channel_dim %= x.dim()
    dims = [d for d in range(x.dim()) if d != channel_dim]
    xf = x if x.dtype == torch.float64 else x.float()
    mean = xf.mean(dim=dims)
    mean_sq = xf.square().mean(dim=dims)
    # in float64, where the smallest norms that are allowed are no denormal numbers
    a, b = balancer_coefficients(mean.double(), mean_sq.double(), bounds, grad_scale)
    a, b = a.to(xf.dtype), b.to(xf.dtype)
    shape = [-1 if d == channel_dim else 1 for d in range(x.dim())]
    push = torch.addcmul(a.view(shape), xf, b.view(shape))
    return torch.addcmul(grad.to(push.dtype), grad.abs().to(push.dtype), push).to(grad.dtype)


def _apply_on_cpu(grad: Tensor, x: Tensor, rows: Tensor, bounds: Bounds, grad_scale: float) -> Tensor:
    """Apply the balancer by fused kernels: one pass over ``rows`` (R, C) for the statistics, one
    for the result.
    """
    num_rows, channels = rows.shape
    parts = -(-num_rows // _PART)
    sums = x.new_zeros(parts, 2, channels)
    kernels.channel_sums(
        parts,
        max(1, _GRAIN // (_PART * channels)),
        kernels.ChannelSums(rows, sums, R=num_rows, C=channels, P=parts),
    )
    mean, mean_sq = (sums.double().sum(0) / num_rows).unbind(0)
    a, b = balancer_coefficients(mean, mean_sq, bounds, grad_scale)
    out = torch.empty_like(x)
    args = kernels.Balance(x=x, dy=grad, dx=out, a=a.float(), b=b.float(), C=channels)
    kernels.balance(num_rows, max(1, _GRAIN // channels), args)
    return out


def _like_x(grad: Tensor, x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, dtype=grad.dtype)


@operator("balancer", _like_x)
def _operator(
    grad: Tensor,
    x: Tensor,
    m_lo: float,
    m_hi: float,
    r_lo: float,
    r_hi: float,
    grad_scale: float,
    channel_dim: int,
) -> Tensor:
    out = _apply(grad, x, (m_lo, m_hi, r_lo, r_hi), grad_scale, channel_dim)
    return like(out, _like_x(grad, x))


@operator("balancer_as_drawn", _like_x)
def _as_drawn_operator(grad: Tensor, x: Tensor, table: Tensor, row: int, channel_dim: int) -> Tensor:
    acts, m_lo, m_hi, r_lo, r_hi, grad_scale = table[row].tolist()
    out = _apply(grad, x, (m_lo, m_hi, r_lo, r_hi), grad_scale, channel_dim) if acts else grad
    return _like_x(grad, x).copy_(out) if out is grad else like(out, _like_x(grad, x))


def balance_gradient_as_drawn(x: Tensor, table: Tensor, row: int, channel_dim: int) -> Tensor:
    """Do what :func:`balance_gradient` does, or nothing, as the backward pass reads.

    Args:
      x: (..., C, ...).
      table: (R, 6) float64 on the CPU; a row holds whether to act, the bounds, and the size of the
        added gradient.
      row: the row.
      channel_dim: the axis of the C channels.

    Returns:
      (..., C, ...)
    """
    return _BalanceGradientAsDrawn.apply(x, table, row, channel_dim)


def balance_gradient(x: Tensor, bounds: Bounds, grad_scale: float, channel_dim: int) -> Tensor:
    """Return ``x`` unchanged; in the backward pass add the balancer's gradient.

    Args:
      x: (..., C, ...); statistics are taken over all axes but ``channel_dim``.
      bounds: see :data:`Bounds`.
      grad_scale: size of the added gradient, relative to each element's own gradient.
      channel_dim: the axis of the C channels.

    Returns:
      (..., C, ...)
    """
    return _BalanceGradient.apply(x, bounds, grad_scale, channel_dim)

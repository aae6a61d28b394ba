"""The balancer's gradient: sums of each channel, coefficients from them, and their application.

Three launches, and nothing that the host waits for. Channels either lie innermost, as rows (R, C)
that may have gaps between them, or are planes (O, C, I). Sums are made of parts, and the parts are
added up in float64, so that they are the same each time and long batches lose no digits.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu import tiles

# bounds, grad_scale and constant of :func:`balance`
_Settings = Tuple[Tuple[float, float, float, float], float, float]
_WIDTH = 128  # channels of a tile, or elements of a plane
_PLANE = 1024


@triton.jit
def _row_sums(x_at, sums_at, rows, channels, stride, part_rows, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the sums of x and of x^2 of the channels in a part of the rows: sums (parts, 2, C)."""
    part, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total, square = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    end = tl.minimum(rows, (part + 1) * part_rows)
    for start in range(part * part_rows, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row[:, None] < rows) & (column[None, :] < channels)
        x = tl.load(x_at + row[:, None].to(tl.int64) * stride + column[None, :], inside, other=0.0)
        x = x.to(tl.float32)
        total += x
        square += x * x
    at = sums_at + part * 2 * channels + column
    tl.store(at, tl.sum(total, axis=0), column < channels)
    tl.store(at + channels, tl.sum(square, axis=0), column < channels)


@triton.jit
def _plane_sums(x_at, sums_at, outer, channels, inner, part_steps, BLOCK: tl.constexpr):
    """Write sums as :func:`_row_sums` does, of planes: a step is BLOCK elements of a plane."""
    part, channel = tl.program_id(0), tl.program_id(1)
    blocks = tl.cdiv(inner, BLOCK)
    total, square = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    end = tl.minimum(outer * blocks, (part + 1) * part_steps)
    for step in range(part * part_steps, end):
        at = (step % blocks) * BLOCK + tl.arange(0, BLOCK)
        first = ((step // blocks) * channels + channel).to(tl.int64) * inner
        x = tl.load(x_at + first + at, at < inner, other=0.0).to(tl.float32)
        total += x
        square += x * x
    at = sums_at + part * 2 * channels + channel
    tl.store(at, tl.sum(total, axis=0))
    tl.store(at + channels, tl.sum(square, axis=0))


@triton.jit
def _coefficients(
    sums_at, out_at, parts, channels, count, m_lo, m_hi, r_lo, r_hi, grad_scale, constant,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a and b, (2, C): the formulas are those of ``balancer_coefficients``."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total, square = tl.zeros((PARTS, BLOCK), tl.float64), tl.zeros((PARTS, BLOCK), tl.float64)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part[:, None] < parts) & (column[None, :] < channels)
        at = sums_at + part[:, None] * 2 * channels + column[None, :]
        total += tl.load(at, inside, other=0.0).to(tl.float64)
        square += tl.load(at + channels, inside, other=0.0).to(tl.float64)
    mean, mean_sq = tl.sum(total, axis=0) / count, tl.sum(square, axis=0) / count
    var = mean_sq - mean * mean
    least = tl.maximum(mean_sq * constant, 1e-20)
    std = tl.sqrt(tl.maximum(var, least))
    size = tl.maximum(mean_sq, 1e-20)
    rms = tl.sqrt(size)
    m = mean / std
    side_m = (m > m_hi).to(tl.float64) - (m < m_lo).to(tl.float64)
    side_r = (rms > r_hi).to(tl.float64) - (rms < r_lo).to(tl.float64)
    slope = tl.where(var > least, mean / (std * std * std), 0.0)
    b = tl.where(mean_sq > 1e-20, side_r / size, 0.0) - side_m * slope
    a = side_m * (1.0 / std + slope * mean)
    norm = tl.sqrt(tl.maximum(a * a + 2.0 * a * b * mean + b * b * mean_sq, 1e-40))
    scale = tl.where((side_m != 0.0) | (side_r != 0.0), grad_scale / norm, 0.0)
    tl.store(out_at + column, (a * scale).to(tl.float32), column < channels)
    tl.store(out_at + channels + column, (b * scale).to(tl.float32), column < channels)


@triton.jit
def _apply_to_rows(
    x_at, dy_at, dx_at, coefficients_at, rows, channels, stride,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, BLOCK)
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row[:, None] < rows) & (column[None, :] < channels)
    a = tl.load(coefficients_at + column, column < channels, other=0.0)
    b = tl.load(coefficients_at + channels + column, column < channels, other=0.0)
    x = tl.load(x_at + row[:, None] * stride + column[None, :], inside, other=0.0).to(tl.float32)
    at = row[:, None] * channels + column[None, :]
    dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
    dx = dy + tl.abs(dy) * (a[None, :] + b[None, :] * x)
    tl.store(dx_at + at, dx.to(dx_at.dtype.element_ty), inside)


@triton.jit
def _apply_to_planes(x_at, dy_at, dx_at, coefficients_at, channels, inner, BLOCK: tl.constexpr):
    blocks = tl.cdiv(inner, BLOCK)
    plane = tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(coefficients_at + plane % channels)
    b = tl.load(coefficients_at + channels + plane % channels)
    at = plane.to(tl.int64) * inner + column
    x = tl.load(x_at + at, column < inner, other=0.0).to(tl.float32)
    dy = tl.load(dy_at + at, column < inner, other=0.0).to(tl.float32)
    dx = dy + tl.abs(dy) * (a + b * x)
    tl.store(dx_at + at, dx.to(dx_at.dtype.element_ty), column < inner)


def _tile(channels: int) -> Tuple[int, int]:
    block = min(_WIDTH, triton.next_power_of_2(channels))
    return tiles.TILE // block, block


def row_sums(rows: Tensor) -> Tensor:
    """Return the sums of x and of x^2 of the channels in parts of ``rows`` (R, C): (parts, 2, C),
    float32. The channels are contiguous, the rows need not be.
    """
    num_rows, channels = rows.shape
    at_once, block = _tile(channels)
    blocks = triton.cdiv(channels, block)
    parts, part_rows = tiles.share(num_rows, at_once, max(1, tiles.PROGRAMS // blocks))
    sums = torch.empty(parts, 2, channels, dtype=torch.float32, device=rows.device)
    _row_sums[(parts, blocks)](
        rows, sums, num_rows, channels, rows.stride(0), part_rows, ROWS=at_once, BLOCK=block
    )
    return sums


def _plane_block(inner: int) -> int:
    return min(_PLANE, triton.next_power_of_2(inner))


def plane_sums(planes: Tensor) -> Tensor:
    """Return sums as :func:`row_sums` does, of contiguous ``planes`` (O, C, I)."""
    outer, channels, inner = planes.shape
    block = _plane_block(inner)
    steps = outer * triton.cdiv(inner, block)
    parts, part_steps = tiles.share(steps, 1, max(1, tiles.PROGRAMS // channels))
    sums = torch.empty(parts, 2, channels, dtype=torch.float32, device=planes.device)
    _plane_sums[(parts, channels)](planes, sums, outer, channels, inner, part_steps, BLOCK=block)
    return sums


def coefficients(
    sums: Tensor, count: int, bounds: Tuple[float, float, float, float], grad_scale: float, constant: float
) -> Tensor:
    """Return the balancer's coefficients (2, C), float32, from sums (parts, 2, C) over ``count``
    elements of each channel.
    """
    parts, _, channels = sums.shape
    out = torch.empty(2, channels, dtype=torch.float32, device=sums.device)
    block = min(32, triton.next_power_of_2(channels))
    _coefficients[(triton.cdiv(channels, block),)](
        sums, out, parts, channels, count, *bounds, grad_scale, constant,
        PARTS=min(32, triton.next_power_of_2(parts)), BLOCK=block,
    )  # fmt: skip
    return out


def _balance_planes(x: Tensor, grad: Tensor, channel_dim: int, settings: _Settings) -> Tensor:
    """Apply the balancer to contiguous x and grad (..., C, ...)."""
    channels, inner = x.shape[channel_dim], x.shape[channel_dim + 1 :].numel()
    planes = x.view(-1, channels, inner)
    both = coefficients(plane_sums(planes), x.numel() // channels, *settings)
    out, block = torch.empty_like(grad), _plane_block(inner)
    grid = (planes.shape[0] * channels * triton.cdiv(inner, block),)
    _apply_to_planes[grid](planes, grad, out, both, channels, inner, BLOCK=block)
    return out


def rows_of(last: Tensor) -> Optional[Tensor]:
    """Return a view (R, C) of ``last`` (..., C), or None where memory is not laid out so."""
    if last.stride(-1) != 1:
        return None
    try:
        return last.view(-1, last.shape[-1])
    except RuntimeError:  # the leading axes have no common stride
        return None


def balance(
    x: Tensor,
    grad: Tensor,
    channel_dim: int,
    bounds: Tuple[float, float, float, float],
    grad_scale: float,
    constant: float,
) -> Tensor:
    """Return ``grad + |grad| * (a + b * x)`` with the balancer's coefficients.

    Args:
      x, grad: (..., C, ...), of any layout.
      channel_dim: the axis of the C channels.
      bounds, grad_scale: see ``balancer_coefficients``.
      constant: variance, relative to the mean square, up to which a channel counts as constant.
    """
    channel_dim %= x.dim()
    last = x.movedim(channel_dim, -1)
    rows = rows_of(last)
    if x.numel() == 0:
        return grad.clone()
    settings: _Settings = (bounds, grad_scale, constant)
    if rows is None and x.is_contiguous():
        return _balance_planes(x, grad.contiguous(), channel_dim, settings)
    if rows is None:
        rows = last.reshape(-1, last.shape[-1]).contiguous()
    num_rows, channels = rows.shape
    both = coefficients(row_sums(rows), num_rows, *settings)
    dy = grad.movedim(channel_dim, -1).contiguous()
    dx = torch.empty_like(dy)
    at_once, block = _tile(channels)
    grid = (triton.cdiv(num_rows, at_once) * triton.cdiv(channels, block),)
    _apply_to_rows[grid](rows, dy, dx, both, num_rows, channels, rows.stride(0), ROWS=at_once, BLOCK=block)
    return dx.movedim(-1, channel_dim)

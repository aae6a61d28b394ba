"""BiasNorm and BasicNorm: one pass over x (R, C) in each direction.

Both multiply a row by a factor: ``exp(log_scale) / rms(x - bias)`` and ``1 / sqrt(mean(x^2) +
exp(log_eps))``. The gradients of the learned values are sums over all rows. Each program adds up a
part of the rows, and the parts are added afterwards in a fixed order, so that they are the same
each time.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu import tiles

_PARTS = 512


@triton.jit
def _forward(
    x_at, bias_at, log_at, y_at, inv_at, rows, channels,
    BIASED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    at = row[:, None].to(tl.int64) * channels + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < channels)
    x = tl.load(x_at + at, inside, other=0.0).to(tl.float32)
    learned = tl.exp(tl.load(log_at).to(tl.float32))
    if BIASED:
        bias = tl.load(bias_at + column, column < channels, other=0.0).to(tl.float32)
        diff = x - bias[None, :]
        inv = 1.0 / tl.sqrt(tl.sum(diff * diff, axis=1) / channels)
        factor = inv * learned
    else:
        inv = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / channels + learned)
        factor = inv
    tl.store(y_at + at, (x * factor[:, None]).to(y_at.dtype.element_ty), inside)
    tl.store(inv_at + row, inv, row < rows)


@triton.jit
def _backward(
    x_at, dy_at, bias_at, log_at, inv_at, dx_at, sums_at, rows, channels, part_rows, width,
    BIASED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute dx, and for each part the sums (width,) that make the gradients: of the bias (with
    one), and of the logarithm.
    """
    part, column = tl.program_id(0), tl.arange(0, BLOCK)
    learned = tl.exp(tl.load(log_at).to(tl.float32))
    dbias, dlog = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS,), tl.float32)
    end = tl.minimum(rows, (part + 1) * part_rows)
    for start in range(part * part_rows, end, ROWS):
        row = start + tl.arange(0, ROWS)
        at = row[:, None].to(tl.int64) * channels + column[None, :]
        inside = (row[:, None] < rows) & (column[None, :] < channels)
        x = tl.load(x_at + at, inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
        inv = tl.load(inv_at + row, row < rows, other=0.0)
        if BIASED:
            factor = inv * learned
            bias = tl.load(bias_at + column, column < channels, other=0.0).to(tl.float32)
            diff = x - bias[None, :]
        else:
            factor = inv
            diff = x
        along = tl.sum(dy * x, axis=1) * factor
        pull = along * inv * inv
        back = diff * (pull / channels)[:, None]
        tl.store(dx_at + at, (dy * factor[:, None] - back).to(dx_at.dtype.element_ty), inside)
        if BIASED:
            dbias += back
            dlog += along
        else:
            dlog += pull
    if BIASED:
        tl.store(sums_at + part * width + column, tl.sum(dbias, axis=0), column < channels)
        tl.store(sums_at + part * width + channels, tl.sum(dlog, axis=0))
    else:
        tl.store(sums_at + part * width, tl.sum(dlog, axis=0) * learned * -0.5)


def fits(x: Tensor) -> bool:
    """Return whether a program can hold a row of x (..., C)."""
    return 0 < x.shape[-1] <= tiles.WIDEST


def forward(x: Tensor, bias: Optional[Tensor], log: Tensor) -> Tuple[Tensor, Tensor]:
    """Normalise a contiguous x (..., C), by BiasNorm where there is a ``bias`` (C,), else by
    BasicNorm; ``log`` is the scalar log_scale or log_eps.

    Returns:
      (..., C), and float32 of the leading axes: one over the root mean square of each row.
    """
    channels = x.shape[-1]
    num_rows = x.numel() // channels
    at_once, block = tiles.tile(channels)
    y, inv = torch.empty_like(x), torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    _forward[(triton.cdiv(num_rows, at_once),)](
        x, log if bias is None else bias, log, y, inv, num_rows, channels,
        BIASED=bias is not None, ROWS=at_once, BLOCK=block, num_warps=tiles.warps(at_once, block),
    )  # fmt: skip
    return y, inv


def backward(
    x: Tensor, dy: Tensor, bias: Optional[Tensor], log: Tensor, inv: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (..., C), of the bias, (C,), or without one (0,), and of ``log``.

    The last two are float32.

    Args:
      x, bias, log: arguments of :func:`forward`.
      dy: (..., C), contiguous, the gradient of its first result.
      inv: its second result.
    """
    channels = x.shape[-1]
    num_rows = x.numel() // channels
    at_once, block = tiles.tile(channels)
    parts, part_rows = tiles.share(num_rows, at_once, _PARTS)
    width = 1 if bias is None else channels + 1
    dx = torch.empty_like(x)
    sums = torch.empty(parts, width, dtype=torch.float32, device=x.device)
    _backward[(parts,)](
        x, dy, log if bias is None else bias, log, inv, dx, sums, num_rows, channels, part_rows, width,
        BIASED=bias is not None, ROWS=at_once, BLOCK=block, num_warps=tiles.warps(at_once, block),
    )  # fmt: skip
    total = sums.sum(dim=0)
    return dx, total[:-1], total[-1]

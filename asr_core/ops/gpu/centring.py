"""Samples with mean 0."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu import tiles
from asr_core.ops.gpu.balancer import row_sums

_BLOCK = 128


@triton.jit
def _subtract(x_at, mean_at, y_at, rows, channels, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    blocks = tl.cdiv(channels, BLOCK)
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row[:, None] < rows) & (column[None, :] < channels)
    mean = tl.load(mean_at + column, column < channels, other=0.0)
    x = tl.load(x_at + row[:, None] * stride + column[None, :], inside, other=0.0).to(tl.float32)
    tl.store(y_at + row[:, None] * channels + column[None, :], x - mean[None, :], inside)


def centred(rows: Tensor) -> Tensor:
    """Return ``rows`` (R, C) less their mean, in float32 (R, C): two reads and one write."""
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    num_rows, channels = rows.shape
    mean = row_sums(rows)[:, 0].sum(dim=0).div_(num_rows)
    block = min(_BLOCK, triton.next_power_of_2(channels))
    at_once = tiles.TILE // block
    out = torch.empty(num_rows, channels, dtype=torch.float32, device=rows.device)
    grid = (triton.cdiv(num_rows, at_once) * triton.cdiv(channels, block),)
    _subtract[grid](rows, mean, out, num_rows, channels, rows.stride(0), ROWS=at_once, BLOCK=block)
    return out

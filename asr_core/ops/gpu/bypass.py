"""The gradient of an interpolation with a weight per column, in one pass."""

from typing import Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu import tiles

_WIDTH = 256  # columns of a tile


@triton.jit
def _backward(
    start_at, end_at, weight_at, dy_at, dstart_at, dend_at, sums_at, rows, columns, part_rows,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of start and end (rows, columns), and the sums of the weights' in parts
    of the rows: sums (parts, columns).
    """
    blocks = tl.cdiv(columns, BLOCK)
    part = tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    weight = tl.load(weight_at + column, column < columns, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    last = tl.minimum(rows, (part + 1) * part_rows)
    for first in range(part * part_rows, last, ROWS):
        row = first + tl.arange(0, ROWS)
        at = row[:, None].to(tl.int64) * columns + column[None, :]
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
        start = tl.load(start_at + at, inside, other=0.0).to(tl.float32)
        end = tl.load(end_at + at, inside, other=0.0).to(tl.float32)
        total += dy * (end - start)
        tl.store(dend_at + at, (dy * weight).to(dend_at.dtype.element_ty), inside)
        tl.store(dstart_at + at, (dy * (1.0 - weight)).to(dstart_at.dtype.element_ty), inside)
    at = part.to(tl.int64) * columns + column
    tl.store(sums_at + at, tl.sum(total, axis=0), column < columns)


def backward(start: Tensor, end: Tensor, weight: Tensor, dy: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``start + (end - start) * weight``, that of the weight in float32.

    Args:
      start, end, dy: (..., M), contiguous, M the shape of the weight.
      weight: (M), contiguous, of the last axes.
    """
    columns = weight.numel()
    num_rows = start.numel() // columns
    block = min(_WIDTH, triton.next_power_of_2(columns))
    at_once, blocks = tiles.TILE // block, triton.cdiv(columns, block)
    parts, part_rows = tiles.share(num_rows, at_once, max(1, tiles.PROGRAMS // blocks))
    dstart, dend = torch.empty_like(start), torch.empty_like(end)
    sums = torch.empty(parts, columns, dtype=torch.float32, device=start.device)
    _backward[(parts * blocks,)](
        start, end, weight, dy, dstart, dend, sums, num_rows, columns, part_rows,
        ROWS=at_once, BLOCK=block,
    )  # fmt: skip
    return dstart, dend, sums.sum(dim=0).view(weight.shape)

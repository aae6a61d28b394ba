"""Windows of contexts of the pruned RNN-T loss: their choice, and what passes through them."""

from typing import Tuple

import triton
import triton.language as tl
from torch import Tensor

_ROWS = 4096  # elements of a program that copies rows or adds them
_SEARCH = 1024  # cells that are looked through at once
_CELLS = 16  # cells that are added at once


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit(do_not_specialize=["T", "S", "x_frames", "R"])
def _best_windows(
    symbol_at, blank_at, boundary_at, begin_at, T, S, x_frames, R, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the first context of the best window of a frame (b, t)."""
    b, t = (tl.program_id(0) // T).to(tl.int64), tl.program_id(0) % T
    s = tl.arange(0, BLOCK)
    fits = s + R <= S + 1
    blanks = blank_at + (b * T + t) * (S + 1) + s
    total = tl.zeros((BLOCK,), tl.float32)
    for r in range(0, R):
        total += tl.load(blanks + r, fits, other=0.0)
    total -= tl.load(symbol_at + (b * x_frames + t) * S + s - 1, fits & (s > 0), other=0.0)
    best = tl.argmax(tl.where(fits, total, float("-inf")), 0)
    s_last, t_last = tl.load(boundary_at + 4 * b + 2), tl.load(boundary_at + 4 * b + 3)
    begin = tl.where(t < t_last - 1, best.to(tl.int64), tl.maximum(s_last - R + 1, 0))
    tl.store(begin_at + b * T + t, begin)


@triton.jit(do_not_specialize=["T", "most"])
def _follow(from_at, to_at, T, most, SLACK: tl.constexpr, FRAMES: tl.constexpr, BLOCK: tl.constexpr):
    """Write the least first context (b, t) of this and all later frames; with SLACK, that which
    moves on by at most ``most`` a frame.
    """
    blocks = tl.cdiv(T, FRAMES)
    b, start = (tl.program_id(0) // blocks).to(tl.int64), (tl.program_id(0) % blocks) * FRAMES
    t = start + tl.arange(0, FRAMES)
    least = tl.full((FRAMES,), 1 << 40, tl.int64)
    for later in range(start, T, BLOCK):
        u = later + tl.arange(0, BLOCK)
        value = tl.load(from_at + b * T + u, u < T, other=0)
        if SLACK:
            value = u.to(tl.int64) * most - value
        value = tl.where((u < T)[None, :] & (u[None, :] >= t[:, None]), value[None, :], 1 << 40)
        least = tl.minimum(least, tl.min(value, 1))
    if SLACK:
        least = t.to(tl.int64) * most - tl.maximum(least, 0)
    tl.store(to_at + b * T + t, least, t < T)


def prune_ranges(symbol: Tensor, blank: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Return the first contexts (B, T) int64 of windows of R contexts.

    Args:
      symbol: (B, T + 1 or T, S) float32, counts of the symbols.
      blank: (B, T, S + 1) float32, counts of the blanks.
      boundary: (B, 4) int64.
      s_range: the number R, at most S + 1.
    """
    num_batch, num_frames, contexts = blank.shape
    x_frames = symbol.shape[1]
    best, lowest, begin = boundary.new_empty(3, num_batch, num_frames).unbind(0)
    _best_windows[(num_batch * num_frames,)](
        symbol, blank, boundary, best, num_frames, contexts - 1, x_frames, s_range,
        BLOCK=triton.next_power_of_2(contexts), num_warps=1,
    )  # fmt: skip
    # where a symbol costs a frame, a path cannot follow a window that moves by more than one
    most = 1 if x_frames == num_frames else s_range - 1
    grid = (num_batch * triton.cdiv(num_frames, 32),)
    _follow[grid](best, lowest, num_frames, most, SLACK=False, FRAMES=32, BLOCK=128)
    _follow[grid](lowest, begin, num_frames, most, SLACK=True, FRAMES=32, BLOCK=128)
    return begin


@triton.jit(do_not_specialize=["cells", "per_utterance", "contexts"])
def _gather(
    lm_at, ranges_at, out_at, cells, per_utterance, contexts, C, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    cell = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = cell // per_utterance * contexts + tl.load(ranges_at + cell, cell < cells, other=0)
    own = (cell < cells)[:, None] & (column < C)[None, :]
    x = tl.load(lm_at + source[:, None] * C + column[None, :], own, other=0.0)
    tl.store(out_at + cell[:, None] * C + column[None, :], x, own)


def _tiles(num_columns: int, most: int) -> Tuple[int, int]:
    """Return the columns of a program and how many rows it takes."""
    block = min(triton.next_power_of_2(max(num_columns, 1)), most)
    return block, max(1, _ROWS // block)


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    """Return the rows of ``lm`` (B, S + 1, C) at ``ranges`` (B, T, R) int64: (B, T, R, C)."""
    num_columns = lm.shape[2]
    out = lm.new_empty(*ranges.shape, num_columns)
    block, rows = _tiles(num_columns, 1024)
    _gather[(triton.cdiv(ranges.numel(), rows), triton.cdiv(num_columns, block))](
        lm.contiguous(), ranges, out, ranges.numel(), ranges.shape[1] * ranges.shape[2], lm.shape[1],
        num_columns, ROWS=rows, BLOCK=block,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["first", "end", "per_utterance", "contexts"])
def _sum_contexts(
    grad_at, ranges_at, out_at, first, end, per_utterance, contexts, C,
    SEARCH: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add to a context's row (b, s) of out the rows of grad, which begins with cell first."""
    row = tl.program_id(0).to(tl.int64)
    b, s = row // contexts, row % contexts
    begin = tl.maximum(b * per_utterance, first)
    behind = tl.maximum(tl.minimum((b + 1) * per_utterance, end), begin)
    lowest, highest = behind, begin  # between which the context is found: windows only move on
    for start in range(begin, behind, SEARCH):
        cell = start + tl.arange(0, SEARCH)
        found = tl.load(ranges_at + cell, cell < behind, other=-1) == s
        lowest = tl.minimum(lowest, tl.min(tl.where(found, cell, behind), 0))
        highest = tl.maximum(highest, tl.max(tl.where(found, cell + 1, begin), 0))
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((CELLS, BLOCK), tl.float32)
    for start in range(lowest, highest, CELLS):
        cell = start + tl.arange(0, CELLS)
        found = tl.load(ranges_at + cell, cell < highest, other=-1) == s
        at = (cell - first)[:, None] * C + column[None, :]
        total += tl.load(grad_at + at, found[:, None] & (column < C)[None, :], other=0.0).to(tl.float32)
    at = out_at + row * C + column
    some = column < tl.where(highest > lowest, C, 0)
    so_far = tl.load(at, some, other=0.0)
    tl.store(at, so_far + tl.sum(total, 0), some)


def add_contexts(grad: Tensor, ranges: Tensor, first: int, out: Tensor) -> None:
    """Add rows of gradients to those of their contexts, in a fixed order.

    Args:
      grad: (M, C), of the cells first ... first + M - 1 of the B T R cells (b, t, r).
      ranges: (B, T, R) int64, the contexts of all cells.
      first: number of the first cell.
      out: (B, S + 1, C) float32.
    """
    num_batch, num_frames, s_range = ranges.shape
    num_columns = grad.shape[1]
    block, _ = _tiles(num_columns, 256)
    grid = (num_batch * out.shape[1], triton.cdiv(num_columns, block))
    _sum_contexts[grid](
        grad, ranges, out, first, first + grad.shape[0], num_frames * s_range, out.shape[1], num_columns,
        SEARCH=_SEARCH, CELLS=_CELLS, BLOCK=block,
    )  # fmt: skip


@triton.jit(do_not_specialize=["first", "end", "per_utterance", "contexts", "R"])
def _hidden(
    am_at, lm_at, ranges_at, out_at, first, end, per_utterance, contexts, R, C,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell = first + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = cell // per_utterance * contexts + tl.load(ranges_at + cell, cell < end, other=0)
    own = (cell < end)[:, None] & (column < C)[None, :]
    am = tl.load(am_at + (cell // R)[:, None] * C + column[None, :], own, other=0.0).to(tl.float32)
    lm = tl.load(lm_at + source[:, None] * C + column[None, :], own, other=0.0).to(tl.float32)
    at = out_at + (cell - first)[:, None] * C + column[None, :]
    tl.store(at, tanh(am + lm).to(out_at.dtype.element_ty), own)


def hidden_rows(am: Tensor, lm: Tensor, ranges: Tensor, first: int, out: Tensor) -> None:
    """Write ``tanh(am[b, t] + lm[b, ranges[b, t, r]])`` of the cells first ... first + M - 1 to out
    (M, C); am (B, T, C) and lm (B, S + 1, C).
    """
    s_range, num_columns = ranges.shape[2], out.shape[1]
    block, rows = _tiles(num_columns, 1024)
    _hidden[(triton.cdiv(out.shape[0], rows), triton.cdiv(num_columns, block))](
        am, lm, ranges, out, first, first + out.shape[0], ranges.shape[1] * s_range, lm.shape[1], s_range,
        num_columns, ROWS=rows, BLOCK=block,
    )  # fmt: skip


@triton.jit(do_not_specialize=["first_frame", "R"])
def _hidden_gradient(hidden_at, grad_at, am_grad_at, first_frame, R, C, BLOCK: tl.constexpr):
    """Turn grad of one frame's rows into that of their sums, and add them up."""
    frame = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for r in range(0, R):
        at = (frame * R + r) * C + column
        h = tl.load(hidden_at + at, column < C, other=0.0).to(tl.float32)
        grad = tl.load(grad_at + at, column < C, other=0.0).to(tl.float32) * (1.0 - h * h)
        tl.store(grad_at + at, grad.to(grad_at.dtype.element_ty), column < C)
        total += grad
    at = am_grad_at + (first_frame + frame) * C + column
    tl.store(at, total.to(am_grad_at.dtype.element_ty), column < C)


def hidden_gradient(hidden: Tensor, grad: Tensor, first: int, s_range: int, am_grad: Tensor) -> None:
    """Turn the gradient of rows of tanh into that of its arguments, in place, and sum it up for am.

    Args:
      hidden: (M, C), the rows ``first ... first + M - 1``, all those of some frames.
      grad: (M, C), their gradient.
      first: number of the first row.
      s_range: rows of a frame.
      am_grad: (B, T, C), of which the rows' frames are written.
    """
    num_rows, num_columns = hidden.shape
    block, _ = _tiles(num_columns, 1024)
    _hidden_gradient[(num_rows // s_range, triton.cdiv(num_columns, block))](
        hidden, grad, am_grad, first // s_range, s_range, num_columns, BLOCK=block
    )

"""Rows of logits of the RNN-T losses: normalisers, scores and gradients, one pass over memory each.

A program takes some whole rows of V columns.
"""

from typing import Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu.rnnt_lattice import NEVER
from asr_core.ops.rnnt.backend import BandScores
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice

_TILE = 2048  # elements of a program, if a row has fewer
_FRAMES = 4  # of a program of am_gradient
_COLUMNS = 512


def _tiles(num_columns: int) -> Tuple[int, int]:
    """Return the columns and the rows of a program."""
    block = triton.next_power_of_2(max(num_columns, 1))
    return block, max(1, _TILE // block)


def _warps(elements: int) -> int:
    """Return the warps of a program: 16 elements per thread, as far as that goes."""
    return min(max(elements // 512, 1), 16)


@triton.jit(do_not_specialize=["num_rows"])
def _exp_rows(x_at, probs_at, largest_at, total_at, num_rows, V, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    own = (row < num_rows)[:, None] & (column < V)[None, :]
    at = row[:, None] * V + column[None, :]
    x = tl.load(x_at + at, own, other=float("-inf")).to(tl.float32)
    largest = tl.max(x, 1)
    probs = tl.exp(x - largest[:, None])
    total = tl.sum(probs, 1)
    good = tl.abs(total) < 3e38  # false for NaN
    tl.store(probs_at + at, tl.where(good[:, None], probs, 0.0), own)
    tl.store(largest_at + row, tl.where(good, largest, float("nan")), row < num_rows)
    tl.store(total_at + row, tl.where(good, total, 1.0), row < num_rows)


def exp_rows(x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the exponentials (B, T, V) of x (B, T, V) minus the rows' maxima, these maxima (B, T)
    and the sums of the exponentials (B, T), all float32; 0, NaN and 1 of rows without distribution.
    """
    x = x.contiguous()
    num_columns = x.shape[2]
    probs = torch.empty_like(x, dtype=torch.float32)
    largest, total = probs.new_empty(2, *x.shape[:2]).unbind(0)
    block, rows = _tiles(num_columns)
    _exp_rows[(triton.cdiv(largest.numel(), rows),)](
        x, probs, largest, total, largest.numel(), num_columns,
        ROWS=rows, BLOCK=block, num_warps=_warps(rows * block),
    )  # fmt: skip
    return probs, largest, total


@triton.jit
def _place(row, num_rows, s_begin_at, symbols_at, boundary_at, T, S, R, blank):
    """Return the utterance, context and next symbol (blank at s = S) of rows (b, t, r), and which
    are inside their lattices.
    """
    own = row < num_rows
    frame = row // R
    b, t = frame // T, frame % T
    s = tl.load(s_begin_at + frame, own, other=0) + row % R
    at = boundary_at + 4 * b
    inside = own & (s >= tl.load(at, own, other=0)) & (s <= tl.load(at + 2, own, other=-1))
    inside = inside & (t >= tl.load(at + 1, own, other=0)) & (t < tl.load(at + 3, own, other=0))
    label = tl.load(symbols_at + b * S + s, inside & (s < S), other=0)
    return b, s, tl.where(s < S, label, blank), inside


@triton.jit(do_not_specialize=["first", "num_rows", "T", "S", "R", "blank"])
def _scores(
    logits_at, s_begin_at, symbols_at, boundary_at, px_at, py_at, norm_at,
    first, num_rows, T, S, R, V, blank, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write norm, px and py of rows first ... num_rows - 1, whose logits begin with row first."""
    row = first + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    _, s, label, inside = _place(row, num_rows, s_begin_at, symbols_at, boundary_at, T, S, R, blank)
    column = tl.arange(0, BLOCK)
    start = logits_at + (row - first) * V
    mask = inside[:, None] & (column < V)[None, :]
    x = tl.load(start[:, None] + column[None, :], mask, other=float("-inf")).to(tl.float32)
    largest = tl.max(x, 1)
    # NaN for a row with +inf or of nothing but -inf, which has no distribution
    norm = largest + tl.log(tl.sum(tl.exp(x - largest[:, None]), 1))
    px = tl.load(start + label, inside, other=0.0).to(tl.float32) - norm
    py = tl.load(start + blank, inside, other=0.0).to(tl.float32) - norm
    own = row < num_rows
    tl.store(norm_at + row, tl.where(inside, norm, 0.0), own)
    tl.store(px_at + row, tl.where(inside & (s < S), px, NEVER), own)
    tl.store(py_at + row, tl.where(inside, py, NEVER), own)


@triton.jit(do_not_specialize=["first", "num_rows", "T", "S", "R", "blank"])
def _gradient(
    logits_at, grad_at, s_begin_at, symbols_at, boundary_at, norm_at, symbol_at, blank_at, scale_at,
    first, num_rows, T, S, R, V, blank, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of rows first ... num_rows - 1, which may take the place of the logits."""
    row = first + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b, _, label, inside = _place(row, num_rows, s_begin_at, symbols_at, boundary_at, T, S, R, blank)
    scale = tl.load(scale_at + b, inside, other=0.0).to(tl.float32)
    by_symbol = scale * tl.load(symbol_at + row, inside, other=0.0)
    by_blank = scale * tl.load(blank_at + row, inside, other=0.0)
    both = by_symbol + by_blank
    used = inside & (both != 0.0)
    norm = tl.load(norm_at + row, used, other=0.0)
    column = tl.arange(0, BLOCK)
    at = (row - first)[:, None] * V + column[None, :]
    x = tl.load(logits_at + at, used[:, None] & (column < V)[None, :], other=float("-inf")).to(tl.float32)
    grad = tl.exp(x - norm[:, None]) * both[:, None]
    grad -= tl.where(column[None, :] == label[:, None], by_symbol[:, None], 0.0)
    grad -= tl.where(column[None, :] == blank, by_blank[:, None], 0.0)
    grad = tl.where(used[:, None], grad, 0.0)
    own = (row < num_rows)[:, None] & (column < V)[None, :]
    tl.store(grad_at + at, grad.to(grad_at.dtype.element_ty), own)


def scores(logits: Tensor, band: Band, first: int, to: BandScores) -> None:
    """Compute the log-probabilities of symbols and blanks, and the normalisers, of rows of a band.

    Args:
      logits: (M, V), of the rows first ... first + M - 1 of the B T R rows (b, t, r).
      band: the lattices and windows.
      first: number of the first row.
      to: (B, T, R) float32 each, of which these rows are written.
    """
    num_rows, num_columns = logits.shape
    block, rows = _tiles(num_columns)
    symbols = band.lattice.symbols
    _scores[(triton.cdiv(num_rows, rows),)](
        logits, band.s_begin, symbols, band.lattice.boundary, *to,
        first, first + num_rows, band.s_begin.shape[1], symbols.shape[1], to.norm.shape[2], num_columns,
        band.lattice.blank, ROWS=rows, BLOCK=block, num_warps=_warps(rows * block),
    )  # fmt: skip


def gradient(
    logits: Tensor,
    grad: Tensor,
    band: Band,
    first: int,
    norm: Tensor,
    counts: Counts,
    scale: Tensor,
) -> None:
    """Write the gradient of ``sum(scale * loss)`` with respect to rows of logits.

    Args:
      logits: (M, V), see :func:`scores`.
      grad: (M, V), to write; may be ``logits``.
      band, first: see :func:`scores`.
      norm: (B, T, R) float32, normalisers of all rows.
      counts: (B, T, R) float32 each, of all rows.
      scale: (B,).
    """
    num_rows, num_columns = logits.shape
    block, rows = _tiles(num_columns)
    symbols = band.lattice.symbols
    _gradient[(triton.cdiv(num_rows, rows),)](
        logits, grad, band.s_begin, symbols, band.lattice.boundary, norm, *counts, scale.contiguous(),
        first, first + num_rows, band.s_begin.shape[1], symbols.shape[1], norm.shape[2], num_columns,
        band.lattice.blank, ROWS=rows, BLOCK=block, num_warps=_warps(rows * block),
    )  # fmt: skip


@triton.jit(do_not_specialize=["T", "S", "x_frames", "blank"])
def _am_gradient(
    grad_at, probs_at, symbol_at, blank_at, symbols_at, scale_at, T, S, x_frames, V, blank,
    FRAMES: tl.constexpr, COLUMNS: tl.constexpr, CONTEXTS: tl.constexpr,
):  # fmt: skip
    """Complete the columns of a tile of frames of one utterance.

    Symbols are subtracted in their order, so that the sums are the same in each run.
    """
    tiles = tl.cdiv(T, FRAMES)
    b, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    t = tile * FRAMES + tl.arange(0, FRAMES)
    v = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    at = (b * T + t)[:, None] * V + v[None, :]
    own = (t < T)[:, None] & (v < V)[None, :]
    own_counts = tl.zeros((FRAMES, COLUMNS), tl.float32)
    for s in range(0, S):
        label = tl.load(symbols_at + b * S + s)
        count = tl.load(symbol_at + (b * x_frames + t) * S + s, t < T, other=0.0)
        own_counts += tl.where((v == label)[None, :], count[:, None], 0.0)
    s = tl.arange(0, CONTEXTS)
    mask = (t < T)[:, None] & (s <= S)[None, :]
    blanks = tl.load(blank_at + (b * T + t)[:, None] * (S + 1) + s[None, :], mask, other=0.0)
    own_counts += tl.where((v == blank)[None, :], tl.sum(blanks, 1)[:, None], 0.0)
    grad = tl.load(grad_at + at, own, other=0.0) * tl.load(probs_at + at, own, other=0.0)
    tl.store(grad_at + at, grad - tl.load(scale_at + b) * own_counts, own)


def am_gradient(product: Tensor, probs: Tensor, counts: Counts, scale: Tensor, lattice: Lattice) -> None:
    """Complete the gradient (B, T, V) of the frames' part of the logits in place of ``product``;
    see the interface of the back ends.
    """
    num_batch, num_frames, num_columns = product.shape
    num_symbols = lattice.symbols.shape[1]
    columns = min(_COLUMNS, triton.next_power_of_2(num_columns))
    grid = (num_batch * triton.cdiv(num_frames, _FRAMES), triton.cdiv(num_columns, columns))
    _am_gradient[grid](
        product, probs, counts.symbol.contiguous(), counts.blank.contiguous(), lattice.symbols,
        scale.contiguous(), num_frames, num_symbols, counts.symbol.shape[1], num_columns, lattice.blank,
        FRAMES=_FRAMES, COLUMNS=columns, CONTEXTS=triton.next_power_of_2(num_symbols + 1),
    )  # fmt: skip


@triton.jit(do_not_specialize=["labels", "V"])
def _sum_by_label(x_at, label_at, out_at, labels, V, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    v = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, labels, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(x_at + i, i < labels, other=0.0)
        label = tl.load(label_at + i, i < labels, other=-1)
        total += tl.sum(tl.where(v[:, None] == label[None, :], x[None, :], 0.0), 1)
    tl.store(out_at + v, total, v < V)


def sum_by_label(x: Tensor, labels: Tensor, num_columns: int) -> Tensor:
    """Return the sums (V,) of x (M,) float32 over equal labels (M,) in [0, V), in a fixed order."""
    out = x.new_empty(num_columns)
    _sum_by_label[(triton.cdiv(num_columns, 32),)](
        x.contiguous(), labels.contiguous(), out, x.numel(), num_columns, COLUMNS=32, BLOCK=64
    )
    return out

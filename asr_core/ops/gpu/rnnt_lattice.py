"""Sums over the paths of RNN-T lattices: one launch for the recursion of a whole batch.

The recursion walks rows of cells, each of which depends on the row before only: a row of a regular
lattice is a diagonal (frame + context), of the others a frame. Arrays (B, N, W) hold, at row n and
context s, what belongs to the arc that *arrives* at the cell: the symbol's comes from context s - 1
and the blank's from s. With skew 1 in a regular lattice and 0 in others, both leave a cell (t, s')
with t = n - 1 - skew s'; N = T + skew S + 1 and W = S + 1.

Three steps: the scores of the arcs are laid out in this order; a program per utterance sums them up
row by row, and hands the last cell's probability back; counts are put back in order of frames.

Scores of cells are float64, since thousands of arcs add up, but what is added in the logarithm at
each cell, at most log 2, is computed in float32: GPUs without fast double precision do not mind.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.rnnt import lattice as values
from asr_core.ops.rnnt.backend import Factors
from asr_core.ops.rnnt.lattice import Band, Lattice

NEVER = tl.constexpr(values.NEVER)
UNREACHED = tl.constexpr(values.UNREACHED)
LARGEST_WEIGHT = tl.constexpr(values.LARGEST_WEIGHT)
LARGEST = tl.constexpr(3e38)  # of finite float32


@triton.jit
def limits_of(boundary_at, b):
    """Return first context, first frame, last context and the frame behind the last one of b."""
    at = boundary_at + 4 * b
    s_first, t_first = tl.load(at).to(tl.int32), tl.load(at + 1).to(tl.int32)
    return s_first, t_first, tl.load(at + 2).to(tl.int32), tl.load(at + 3).to(tl.int32)


@triton.jit
def _at_least_never(score, inside):
    """Return the scores of arcs, NEVER outside the lattice; NaN stays NaN."""
    return tl.where(inside, tl.where(score < NEVER, NEVER, score), NEVER)


@triton.jit
def _factored(
    am_at, lm_at, context_at, log_dot_at, lm_max_at, am_max_at, frame_at,
    t, s, label, inside, V, W, scale, am_scale, BOTH: tl.constexpr, AM: tl.constexpr,
):  # fmt: skip
    """Return the scores of the labels at the cells (t, s) of one utterance; see Factors."""
    am = tl.load(am_at + t.to(tl.int64) * V + label, inside, other=0.0)
    score = tl.load(context_at + s, inside, other=0.0)
    if BOTH:
        norm = tl.load(log_dot_at + t * W + s, inside, other=0.0) + tl.load(lm_max_at + s, inside, other=0.0)
        norm += tl.load(am_max_at + t, inside, other=0.0)
        score = ((am + tl.load(lm_at + s, inside, other=0.0)) - norm) * scale + score
    if AM:
        score = score + (am_scale * am + tl.load(frame_at + t, inside, other=0.0))
    return score


@triton.jit(do_not_specialize=["T", "S", "V", "blank"])
def _factored_arrivals(
    am_at, lm_symbol_at, lm_blank_at, am_max_at, lm_max_at, log_dot_at, context_symbol_at,
    context_blank_at, frame_at, symbols_at, boundary_at, x_at, y_at,
    T, S, V, blank, scale, am_scale, penalty,
    SKEW: tl.constexpr, CONSTRAINED: tl.constexpr, BOTH: tl.constexpr, AM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row of x (B, N, W) and y (B, N, W) from the factors of the scores."""
    W, rows = S + 1, T + SKEW * S + 1
    b, n = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    s_first, t_first, s_last, t_last = limits_of(boundary_at, b)
    am, am_max, frame = am_at + b * T * V, am_max_at + b * T, frame_at + b * T
    log_dot, lm_max = log_dot_at + b * T * W, lm_max_at + b * W
    lm_blank, context_blank = lm_blank_at + b * W, context_blank_at + b * W
    s = tl.arange(0, BLOCK)
    to = (b * rows + n) * W + s

    t = n - 1 - SKEW * s
    inside = (t >= t_first) & (t < t_last) & (s >= s_first) & (s <= s_last)
    y = _factored(
        am, lm_blank, context_blank, log_dot, lm_max, am_max, frame,
        t, s, blank, inside, V, W, scale, am_scale, BOTH, AM,
    )  # fmt: skip
    tl.store(y_at + to, _at_least_never(y, inside), s < W)

    p = s - 1  # the context before
    t = n - 1 - SKEW * p
    inside = (t >= t_first) & (t < t_last) & (p >= s_first) & (s <= s_last)
    label = tl.load(symbols_at + b * S + p, inside, other=0)
    x = _factored(
        am, lm_symbol_at + b * S, context_symbol_at + b * S, log_dot, lm_max, am_max, frame,
        t, p, label, inside, V, W, scale, am_scale, BOTH, AM,
    )  # fmt: skip
    if CONSTRAINED:
        x += _factored(
            am, lm_blank, context_blank, log_dot, lm_max, am_max, frame,
            t, s, blank, inside, V, W, scale, am_scale, BOTH, AM,
        )  # fmt: skip
    x += penalty * (0.5 * (t_last - 1) - t)
    tl.store(x_at + to, _at_least_never(x, inside), s < W)


@triton.jit(do_not_specialize=["T", "S", "R"])
def _band_arrivals(
    px_at, py_at, s_begin_at, boundary_at, x_at, y_at, T, S, R, penalty,
    SKEW: tl.constexpr, CONSTRAINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row of x (B, N, W) and y (B, N, W) from the scores (B, T, R) of a band."""
    W, rows = S + 1, T + SKEW * S + 1
    b, n = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    s_first, t_first, s_last, t_last = limits_of(boundary_at, b)
    s = tl.arange(0, BLOCK)
    to = (b * rows + n) * W + s

    t = n - 1 - SKEW * s
    inside = (t >= t_first) & (t < t_last) & (s >= s_first) & (s <= s_last)
    r = s - tl.load(s_begin_at + b * T + t, inside, other=0)
    inside = inside & (r >= 0) & (r < R)
    y = tl.load(py_at + (b * T + t) * R + r, inside, other=NEVER)
    tl.store(y_at + to, _at_least_never(y, inside), s < W)

    p = s - 1  # the context before
    t = n - 1 - SKEW * p
    inside = (t >= t_first) & (t < t_last) & (p >= s_first) & (s <= s_last)
    r = p - tl.load(s_begin_at + b * T + t, inside, other=0)
    inside = inside & (r >= 0) & (r < R)
    x = tl.load(px_at + (b * T + t) * R + r, inside, other=NEVER)
    if CONSTRAINED:
        x += tl.load(py_at + (b * T + t) * R + r + 1, inside & (r + 1 < R), other=NEVER)
    x += penalty * (0.5 * (t_last - 1) - t)
    tl.store(x_at + to, _at_least_never(x, inside), s < W)


@triton.jit(do_not_specialize=["rows", "W"])
def _recursion(
    x_at, y_at, score_at, boundary_at, loss_at, rows, W,
    SKEW: tl.constexpr, WANT_COUNTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum up an utterance's lattice; with WANT_COUNTS x and y become the counts of its arcs.

    Neighbours exchange scores through two rows of score (B, 2, W), counts through x. A thread that
    is ahead by one row writes where none reads any more, so one barrier per row is enough. The
    next row is loaded before the present one is computed.
    """
    b = tl.program_id(0).to(tl.int64)
    s_first, t_first, s_last, t_last = limits_of(boundary_at, b)
    first, last = t_first + SKEW * s_first, t_last + SKEW * s_last
    s = tl.arange(0, BLOCK)
    own = s < W
    x_at += b * rows * W + s
    y_at += b * rows * W + s
    score_at += b * 2 * W + s

    before = tl.where(s == s_first, 0.0, NEVER).to(tl.float64)
    tl.store(score_at + (first % 2) * W, before, own)
    more = s < tl.where(first < last, W, 0)
    x = tl.load(x_at + (first + 1) * W, more, other=NEVER)
    y = tl.load(y_at + (first + 1) * W, more, other=NEVER)
    for n in range(first + 1, last + 1):
        more = s < tl.where(n < last, W, 0)
        x_next = tl.load(x_at + (n + 1) * W, more, other=NEVER)
        y_next = tl.load(y_at + (n + 1) * W, more, other=NEVER)
        tl.debug_barrier()
        left = tl.load(score_at + ((n - 1) % 2) * W - 1, own & (s > 0), other=NEVER)
        by_x, by_y = left + x, before + y
        difference = (by_x - by_y).to(tl.float32)
        total = tl.where(difference > 0, by_x, by_y) + tl.log(1.0 + tl.exp(-tl.abs(difference)))
        tl.store(score_at + (n % 2) * W, total, own)
        if WANT_COUNTS:  # shares of the two arcs in the cell
            share = tl.where(by_x > UNREACHED, tl.sigmoid(difference), 0.0)
            tl.store(x_at + n * W, share, own)
            tl.store(y_at + n * W, tl.where(by_y > UNREACHED, 1.0 - share, 0.0), own)
        before, x, y = total, x_next, y_next
    total = tl.sum(tl.where(s == s_last, before, 0.0), 0)
    loss = tl.where(total <= UNREACHED, float("inf"), -total).to(tl.float32)
    tl.store(loss_at + b, loss)

    if WANT_COUNTS:
        tl.debug_barrier()
        count = tl.where(s == s_last, 1.0, 0.0)
        finite = tl.abs(loss) < LARGEST
        more = s < tl.where(first < last, W, 0)
        x = tl.load(x_at + last * W, more, other=0.0)
        y = tl.load(y_at + last * W, more, other=0.0)
        for i in range(0, tl.where(finite, last - first, 0)):
            n = last - i
            more = s < tl.where(n > first + 1, W, 0)
            x_next = tl.load(x_at + (n - 1) * W, more, other=0.0)
            y_next = tl.load(y_at + (n - 1) * W, more, other=0.0)
            by_y = count * y
            tl.store(x_at + n * W, count * x, own)
            tl.store(y_at + n * W, by_y, own)
            tl.debug_barrier()
            count = by_y + tl.load(x_at + n * W + 1, s + 1 < W, other=0.0)
            x, y = x_next, y_next


@triton.jit
def _cell_counts(x_at, y_at, b, t, s, s_last, inside, W, rows, SKEW: tl.constexpr, CONSTRAINED: tl.constexpr):
    """Return the counts of the symbols and of all blanks, forced ones included, at cells (t, s)."""
    at = (b * rows + t + 1 + SKEW * s) * W + s
    symbol = tl.load(x_at + at + 1, inside & (s < s_last), other=0.0)
    blank = tl.load(y_at + at, inside, other=0.0)
    forced = blank
    if CONSTRAINED:  # the symbol from the context before brings a blank along on its frame
        forced += tl.load(x_at + at, inside & (s > 0), other=0.0)
    return symbol, blank, forced


@triton.jit(do_not_specialize=["T", "S", "x_frames"])
def _factored_counts(
    x_at, y_at, loss_at, dot_at, boundary_at, symbol_at, blank_at, weight_at, T, S, x_frames, scale,
    SKEW: tl.constexpr, CONSTRAINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the counts and weights of a frame (b, t)."""
    W, rows = S + 1, T + SKEW * S + 1
    b = (tl.program_id(0) // x_frames).to(tl.int64)
    s_first, t_first, s_last, t_last = limits_of(boundary_at, b)
    s = tl.arange(0, BLOCK)
    t = tl.program_id(0) % x_frames + 0 * s
    s_last = tl.where(tl.abs(tl.load(loss_at + b)) < LARGEST, s_last, -1)  # no counts
    inside = (t >= t_first) & (t < t_last) & (s >= s_first) & (s <= s_last)
    symbol, blank, all_blanks = _cell_counts(x_at, y_at, b, t, s, s_last, inside, W, rows, SKEW, CONSTRAINED)
    tl.store(symbol_at + (b * x_frames + t) * S + s, symbol, s < S)
    to, own = (b * T + t) * W + s, (s < W) & (t < T)
    tl.store(blank_at + to, blank, own)
    weight = scale * (symbol + all_blanks) / tl.load(dot_at + to, inside, other=1.0)
    tl.store(weight_at + to, tl.where(weight > LARGEST_WEIGHT, LARGEST_WEIGHT, weight), own)


@triton.jit(do_not_specialize=["T", "S", "R", "cells"])
def _band_counts(
    x_at, y_at, loss_at, s_begin_at, boundary_at, symbol_at, blank_at, T, S, R, cells,
    SKEW: tl.constexpr, CONSTRAINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write counts (B, T, R) of a block of cells of the band."""
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = cell < cells
    frame = cell // R
    b, t = frame // T, frame % T
    s = tl.load(s_begin_at + frame, own, other=0) + cell % R
    at = boundary_at + 4 * b
    s_last = tl.load(at + 2, own, other=-1)
    inside = own & (t >= tl.load(at + 1, own, other=0)) & (t < tl.load(at + 3, own, other=0))
    inside = inside & (s >= tl.load(at, own, other=0)) & (s <= s_last)
    inside = inside & (tl.abs(tl.load(loss_at + b, own, other=0.0)) < LARGEST)
    W, rows = S + 1, T + SKEW * S + 1
    symbol, _, blank = _cell_counts(x_at, y_at, b, t, s, s_last, inside, W, rows, SKEW, CONSTRAINED)
    tl.store(symbol_at + cell, symbol, own)
    tl.store(blank_at + cell, blank, own)


def _arrivals_like(scores: Tensor, lattice: Lattice, num_frames: int) -> Tuple[Tensor, Tensor]:
    """Make x (B, N, W) and y (B, N, W), which the caller fills."""
    num_batch, num_symbols = lattice.symbols.shape
    rows = num_frames + int(lattice.regular) * num_symbols + 1
    x, y = scores.new_empty(2, num_batch, rows, num_symbols + 1, dtype=torch.float32).unbind(0)
    return x, y


def _sum_up(x: Tensor, y: Tensor, lattice: Lattice, want_counts: bool) -> Tensor:
    """Return the losses (B,) of lattices with arcs' scores x (B, N, W) and y (B, N, W), which
    become counts if wanted.
    """
    num_batch, rows, width = x.shape
    loss, score = x.new_empty(num_batch), x.new_empty(num_batch, 2, width, dtype=torch.float64)
    block = triton.next_power_of_2(width)
    _recursion[(num_batch,)](
        x, y, score, lattice.boundary, loss, rows, width,
        SKEW=int(lattice.regular), WANT_COUNTS=want_counts, BLOCK=block,
        num_warps=min(max(block // 32, 1), 16),
    )  # fmt: skip
    return loss


def factored_lattice(
    factors: Factors, lattice: Lattice, want_counts: bool
) -> Tuple[Tensor, Optional[Tuple[Tensor, Tensor, Tensor]]]:
    """Return the losses (B,) of factorised lattices and, if wanted, the counts of symbols (B, T + 1
    or T, S) and blanks (B, T, S + 1), and the weights (B, T, S + 1).
    """
    num_batch, num_frames, num_columns = factors.am.shape
    num_symbols = lattice.symbols.shape[1]
    x, y = _arrivals_like(factors.am, lattice, num_frames)
    block = triton.next_power_of_2(num_symbols + 1)
    kind = {"SKEW": int(lattice.regular), "CONSTRAINED": lattice.constrained, "BLOCK": block}
    parts = (
        factors.am, factors.lm_symbol, factors.lm_blank, factors.am_max, factors.lm_max,
        factors.log_dot, factors.context_symbol, factors.context_blank, factors.frame,
    )  # fmt: skip
    _factored_arrivals[(num_batch * x.shape[1],)](
        *(part.contiguous() for part in parts), lattice.symbols, lattice.boundary, x, y,
        num_frames, num_symbols, num_columns, lattice.blank, float(factors.scale), float(factors.am_scale),
        max(lattice.delay_penalty, 0.0), BOTH=factors.scale != 0.0, AM=factors.am_scale != 0.0, **kind,
    )  # fmt: skip
    loss = _sum_up(x, y, lattice, want_counts)
    if not want_counts:
        return loss, None
    x_frames = num_frames + int(lattice.regular)
    symbol = x.new_empty(num_batch, x_frames, num_symbols)
    blank, weights = x.new_empty(2, num_batch, num_frames, num_symbols + 1).unbind(0)
    _factored_counts[(num_batch * x_frames,)](
        x, y, loss, factors.dot, lattice.boundary, symbol, blank, weights,
        num_frames, num_symbols, x_frames, float(factors.scale), **kind,
    )  # fmt: skip
    return loss, (symbol, blank, weights)


def band_lattice(
    px: Tensor, py: Tensor, band: Band, want_counts: bool
) -> Tuple[Tensor, Optional[Tuple[Tensor, Tensor]]]:
    """Return the losses (B,) of the lattices of a band with scores px (B, T, R) and py (B, T, R)
    and, if wanted, the counts (B, T, R) of symbols and of all blanks.
    """
    lattice = band.lattice
    num_batch, num_frames, s_range = px.shape
    num_symbols = lattice.symbols.shape[1]
    x, y = _arrivals_like(px, lattice, num_frames)
    kind = {"SKEW": int(lattice.regular), "CONSTRAINED": lattice.constrained}
    _band_arrivals[(num_batch * x.shape[1],)](
        px, py, band.s_begin, lattice.boundary, x, y, num_frames, num_symbols, s_range,
        max(lattice.delay_penalty, 0.0), BLOCK=triton.next_power_of_2(num_symbols + 1), **kind,
    )  # fmt: skip
    loss = _sum_up(x, y, lattice, want_counts)
    if not want_counts:
        return loss, None
    symbol, blank = px.new_empty(2, num_batch, num_frames, s_range, dtype=torch.float32).unbind(0)
    block = 256
    _band_counts[(triton.cdiv(px.numel(), block),)](
        x, y, loss, band.s_begin, lattice.boundary, symbol, blank,
        num_frames, num_symbols, s_range, px.numel(), BLOCK=block, **kind,
    )  # fmt: skip
    return loss, (symbol, blank)

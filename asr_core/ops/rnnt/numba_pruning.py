"""CPU kernels of the pruning and of its windows.

The functions of the torch back end define what they compute.
"""

from typing import NamedTuple

import numpy as np

from asr_core.ops.cpu.arrays import Address, Zero, f32_array, f64_array, float_array, i64_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece
from asr_core.ops.rnnt.numba_math import compiled


class PruneRanges(NamedTuple):
    """Choice of windows of R contexts that move by at most ``most`` a frame.

    Counts occ_x (B, rows, S) and occ_y (B, T, S + 1) with elements of ``itemsize`` bytes, boundary
    (B, 4) and begins (B, T) int64.
    """

    occ_x: Address
    occ_y: Address
    boundary: Address
    begins: Address
    itemsize: int
    T: int
    S: int
    rows: int
    R: int
    most: int


@compiled
def _window_begins(
    occ_x: np.ndarray,
    occ_y: np.ndarray,
    s_last: int,
    t_last: int,
    s_range: int,
    most: int,
    begins: np.ndarray,
) -> None:
    """Choose the best first context of each frame, begins (T,), then make them monotonic with steps
    of at most ``most``.
    """
    frames, contexts = occ_y.shape
    num_begins = contexts - s_range + 1
    inside = np.empty(num_begins, occ_y.dtype)
    for t in range(frames):
        begins[t] = max(0, s_last - s_range + 1)
        if t >= t_last - 1:
            continue
        counts = occ_y[t]
        for k in range(num_begins):
            inside[k] = counts[k]
        # added in the order of the contexts, so that ties are decided by the same roundings
        # everywhere
        for offset in range(1, s_range):
            for k in range(num_begins):
                inside[k] += counts[k + offset]
        for k in range(1, num_begins):
            inside[k] -= occ_x[t, k - 1]
        best = 0
        for k in range(num_begins):
            if inside[k] > inside[best]:
                best = k
        begins[t] = best
    lowest = begins[frames - 1]
    for t in range(frames - 1, -1, -1):
        lowest = min(lowest, begins[t])
        begins[t] = lowest
    slack = most * frames
    for t in range(frames - 1, -1, -1):
        slack = min(slack, most * t - begins[t])
        begins[t] = most * t - max(slack, 0)


@kernel(PruneRanges)
def prune_ranges(data: Pointer) -> None:
    """Choose the windows; a kernel row is an utterance."""
    a = fields(PruneRanges, data)
    S, n_x, n_y = a.S, a.rows * a.S, a.T * (a.S + 1)
    begin, end = next_piece(data)
    while begin < end:
        for b in range(begin, end):
            limits, begins = i64_array(a.boundary + 32 * b, 4), i64_array(a.begins + 8 * b * a.T, a.T)
            at_x, at_y = a.occ_x + a.itemsize * b * n_x, a.occ_y + a.itemsize * b * n_y
            if a.itemsize == 4:
                occ_x, occ_y = (
                    f32_array(at_x, n_x).reshape(a.rows, S),
                    f32_array(at_y, n_y).reshape(a.T, S + 1),
                )
                _window_begins(occ_x, occ_y, limits[2], limits[3], a.R, a.most, begins)
            else:
                occ_x64, occ_y64 = (
                    f64_array(at_x, n_x).reshape(a.rows, S),
                    f64_array(at_y, n_y).reshape(a.T, S + 1),
                )
                _window_begins(occ_x64, occ_y64, limits[2], limits[3], a.R, a.most, begins)
        begin, end = next_piece(data)


class GatherContexts(NamedTuple):
    """Rows of lm at ranges: lm (B, S + 1, W), ranges (B, T, R) int64, out (B, T, R, W), all but
    ranges in words of 4 bytes.
    """

    lm: Address
    ranges: Address
    out: Address
    words: int
    per_utterance: int
    contexts: int


@kernel(GatherContexts)
def gather_contexts(data: Pointer) -> None:
    """Copy the rows.

    A kernel row is one of the B T R rows of out, of which an utterance has ``per_utterance``.
    """
    a = fields(GatherContexts, data)
    words = a.words
    begin, end = next_piece(data)
    while begin < end:
        ranges = i64_array(a.ranges, end)
        for row in range(begin, end):
            source = (row // a.per_utterance) * a.contexts + ranges[row]
            x, y = f32_array(a.lm + 4 * source * words, words), f32_array(a.out + 4 * row * words, words)
            for i in range(words):
                y[i] = x[i]
        begin, end = next_piece(data)


class SumContexts(NamedTuple):
    """Sums of gradients over windows of R contexts, by blocks of ``width`` columns.

    am_grad (B, T, R, C) or 0, lm_grad (B, T, R, C) or 0, ranges (B, T, R) int64, am_sum (B, T, C),
    lm_sum (B, contexts, C) zeroed, with elements of ``itemsize`` bytes.
    """

    am_grad: Address
    lm_grad: Address
    ranges: Address
    am_sum: Address
    lm_sum: Address
    itemsize: int
    T: int
    R: int
    contexts: int
    C: int
    width: int


@compiled
def _add(x: np.ndarray, y: np.ndarray) -> None:
    """Add x (C,) to y (C,)."""
    for i in range(x.size):
        y[i] += x[i]


@compiled
def _copy(x: np.ndarray, y: np.ndarray) -> None:
    """Copy x (C,) to y (C,)."""
    for i in range(x.size):
        y[i] = x[i]


@compiled
def _sum_block(a: SumContexts, b: int, first: int, zero: Zero) -> None:
    """Sum the columns of utterance b from ``first`` on."""
    n, size = min(a.width, a.C - first), a.itemsize
    cells = a.T * a.R
    ranges = i64_array(a.ranges + 8 * b * cells, cells)
    for cell in range(cells):
        source = size * ((b * cells + cell) * a.C + first)
        if a.lm_grad != 0:
            to_lm = a.lm_sum + size * ((b * a.contexts + ranges[cell]) * a.C + first)
            _add(float_array(zero, a.lm_grad + source, n), float_array(zero, to_lm, n))
        if a.am_grad != 0:
            to_am = a.am_sum + size * ((b * a.T + cell // a.R) * a.C + first)
            if cell % a.R == 0:
                _copy(float_array(zero, a.am_grad + source, n), float_array(zero, to_am, n))
            else:
                _add(float_array(zero, a.am_grad + source, n), float_array(zero, to_am, n))


@kernel(SumContexts)
def sum_contexts(data: Pointer) -> None:
    """Sum the gradients; a kernel row is a block of columns of an utterance."""
    a = fields(SumContexts, data)
    blocks = (a.C + a.width - 1) // a.width
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            if a.itemsize == 4:
                _sum_block(a, row // blocks, (row % blocks) * a.width, np.float32(0.0))
            else:
                _sum_block(a, row // blocks, (row % blocks) * a.width, np.float64(0.0))
        begin, end = next_piece(data)

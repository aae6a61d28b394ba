"""CPU kernels of the pruning and of its windows; what they compute is said in the torch back end."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, f64_array, i64_array, kernel, next_piece
from asr_core.ops.rnnt.numba_math import compiled


@compiled
def _window_begins(occ_x, occ_y, s_last, t_last, s_range, most, begins):  # noqa: ANN001, ANN202
    """Best first context of each frame, then made monotonic with steps of at most ``most``."""
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
        # added in the order of the contexts, so that ties are decided by the same roundings everywhere
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


@kernel(n_args=10)
def prune_ranges(data):  # noqa: ANN001, ANN201
    """One utterance a row.

    args: bytes per element, T, S, rows of occ_x, s_range, most steps a frame, occ_x (B, rows, S), occ_y (B, T, S + 1),
    boundary (B, 4), begins (B, T).
    """
    args, _ = arguments(data, 10, 1)
    size, frames, num, x_rows, s_range, most = args[0], args[1], args[2], args[3], args[4], args[5]
    n_x, n_y = x_rows * num, frames * (num + 1)
    begin, end = next_piece(data)
    while begin < end:
        for b in range(begin, end):
            limits, begins = i64_array(args[8] + 32 * b, 4), i64_array(args[9] + 8 * b * frames, frames)
            at_x, at_y = args[6] + size * b * n_x, args[7] + size * b * n_y
            if size == 4:
                occ_x, occ_y = (
                    f32_array(at_x, n_x).reshape(x_rows, num),
                    f32_array(at_y, n_y).reshape(frames, num + 1),
                )
                _window_begins(occ_x, occ_y, limits[2], limits[3], s_range, most, begins)
            else:
                occ_x64, occ_y64 = (
                    f64_array(at_x, n_x).reshape(x_rows, num),
                    f64_array(at_y, n_y).reshape(frames, num + 1),
                )
                _window_begins(occ_x64, occ_y64, limits[2], limits[3], s_range, most, begins)
        begin, end = next_piece(data)


@kernel(n_args=6)
def gather_contexts(data):  # noqa: ANN001, ANN201
    """One row (b, t, r) a row. args: 4-byte words per row of lm, T * s_range, S + 1, lm, ranges, out."""
    args, _ = arguments(data, 6, 1)
    words, per_utterance, contexts = args[0], args[1], args[2]
    begin, end = next_piece(data)
    while begin < end:
        ranges = i64_array(args[4], end)
        for row in range(begin, end):
            source = (row // per_utterance) * contexts + ranges[row]
            x, y = f32_array(args[3] + 4 * source * words, words), f32_array(args[5] + 4 * row * words, words)
            for i in range(words):
                y[i] = x[i]
        begin, end = next_piece(data)


@compiled
def _add(x, y):  # noqa: ANN001, ANN202
    for i in range(x.size):
        y[i] += x[i]


@compiled
def _copy(x, y):  # noqa: ANN001, ANN202
    for i in range(x.size):
        y[i] = x[i]


@kernel(n_args=11)
def sum_contexts(data):  # noqa: ANN001, ANN201
    """One block of columns of one utterance a row.

    args: bytes per element, T, s_range, S + 1, C, columns per block, am_grad, lm_grad (B, T, s_range, C) (0: not wanted), ranges
    (B, T, s_range), am_sum (B, T, C), lm_sum (B, S + 1, C) zeroed.
    """
    args, _ = arguments(data, 11, 1)
    size, frames, s_range, contexts, columns, width = args[0], args[1], args[2], args[3], args[4], args[5]
    blocks = (columns + width - 1) // width
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            b, first = row // blocks, (row % blocks) * width
            n = min(width, columns - first)
            ranges = i64_array(args[8] + 8 * b * frames * s_range, frames * s_range)
            for cell in range(frames * s_range):
                source = size * ((b * frames * s_range + cell) * columns + first)
                to_am = args[9] + size * ((b * frames + cell // s_range) * columns + first)
                to_lm = args[10] + size * ((b * contexts + ranges[cell]) * columns + first)
                if size == 4:
                    if args[7] != 0:
                        _add(f32_array(args[7] + source, n), f32_array(to_lm, n))
                    if args[6] != 0 and cell % s_range == 0:
                        _copy(f32_array(args[6] + source, n), f32_array(to_am, n))
                    elif args[6] != 0:
                        _add(f32_array(args[6] + source, n), f32_array(to_am, n))
                else:
                    if args[7] != 0:
                        _add(f64_array(args[7] + source, n), f64_array(to_lm, n))
                    if args[6] != 0 and cell % s_range == 0:
                        _copy(f64_array(args[6] + source, n), f64_array(to_am, n))
                    elif args[6] != 0:
                        _add(f64_array(args[6] + source, n), f64_array(to_am, n))
        begin, end = next_piece(data)

"""CPU kernels of the pruned RNN-T loss; what they compute is said in the torch back end."""

import math

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, f64_array, i64_array, kernel, next_piece
from asr_core.ops.rnnt.numba_math import NEVER, UNREACHED, compiled, exp, row_max, sum_exp


@compiled
def _row_place(row, frames, s_range, s_begin, boundary):  # noqa: ANN001, ANN202
    """Utterance and s of row (b, t, r) of a band, and whether it lies inside its lattice."""
    cell = row // s_range
    b = cell // frames
    t, s = cell % frames, s_begin[cell] + row % s_range
    limits = boundary[4 * b : 4 * b + 4]
    return b, s, limits[1] <= t and t < limits[3] and limits[0] <= s and s <= limits[2]


@compiled
def _log_norm(x):  # noqa: ANN001, ANN202
    largest = row_max(x)
    return np.float64(largest) + math.log(sum_exp(x, largest))


@kernel(n_args=14)
def pruned_scores(data):  # noqa: ANN001, ANN201
    """One row (b, t, r) of the band a row.

    args: bytes per element, B, T, S, s_range, C, blank, logits (B, T, s_range, C), symbols (B, S), s_begin (B, T), boundary (B, 4),
    px, py, norm (B, T, s_range) float64.
    """
    args, _ = arguments(data, 14, 1)
    size, batch, frames, num, s_range, columns, blank = (
        args[0],
        args[1],
        args[2],
        args[3],
        args[4],
        args[5],
        args[6],
    )
    symbols, s_begin, boundary = (
        i64_array(args[8], batch * num),
        i64_array(args[9], batch * frames),
        i64_array(args[10], 4 * batch),
    )
    rows = batch * frames * s_range
    px, py, norm = f64_array(args[11], rows), f64_array(args[12], rows), f64_array(args[13], rows)
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            b, s, inside = _row_place(row, frames, s_range, s_begin, boundary)
            px[row] = NEVER
            py[row] = NEVER
            norm[row] = 0.0
            if not inside:
                continue
            label = symbols[b * num + s] if s < num else blank
            if size == 4:
                x = f32_array(args[7] + 4 * row * columns, columns)
                norm[row] = _log_norm(x)
                score, blank_score = np.float64(x[label]), np.float64(x[blank])
            else:
                y = f64_array(args[7] + 8 * row * columns, columns)
                norm[row] = _log_norm(y)
                score, blank_score = y[label], y[blank]
            py[row] = blank_score - norm[row]
            if s < num:
                px[row] = score - norm[row]
        begin, end = next_piece(data)


@compiled
def _join(by_x, by_y):  # noqa: ANN001, ANN202
    """log(e^by_x + e^by_y), and the shares of the two."""
    difference = by_x - by_y
    ratio = math.exp(-abs(difference))
    total = (by_x if by_x > by_y else by_y) + math.log1p(ratio)
    larger, smaller = 1.0 / (1.0 + ratio), ratio / (1.0 + ratio)
    return (total, larger, smaller) if difference >= 0 else (total, smaller, larger)


@compiled
def _at(row, index):  # noqa: ANN001, ANN202
    return row[index] if 0 <= index and index < row.size else NEVER


@compiled
def _symbol_score(px, py, t, r, constrained, early):  # noqa: ANN001, ANN202
    score = px[t, r] + early
    if constrained:
        score += _at(py[t], r + 1)
    # NaN stays NaN
    return NEVER if score < NEVER else score


@compiled
def _band_forward(px, py, s_begin, limits, options, penalty, x_share, y_share):  # noqa: ANN001, ANN202
    """Total score of one utterance; shares of the arcs that arrive at each cell (row t_last holds the last cell alone)."""
    skew, constrained = options
    s_first, t_first, s_last, t_last = limits
    s_range = px.shape[1]
    before, after = np.full(s_range, NEVER), np.full(s_range, NEVER)
    start_before = s_first
    for t in range(t_first, t_last + 1):
        final = t == t_last
        start = s_last if final else s_begin[t]
        early = penalty * ((t_last - 1) * 0.5 - (t if skew else t - 1))
        for r in range(1 if final else s_range):
            s = start + r
            after[r] = NEVER
            x_share[t, r] = 0.0
            y_share[t, r] = 0.0
            if s < s_first or s > s_last:
                continue
            if t == t_first and s == s_first:
                after[r] = 0.0
                continue
            by_x, by_y = NEVER, NEVER
            above = s - start_before
            if t > t_first and 0 <= above and above < s_range:
                score = py[t - 1, above]
                by_y = before[above] + (NEVER if score < NEVER else score)
            if s > s_first:
                if skew:
                    if r > 0 and not final:
                        by_x = after[r - 1] + _symbol_score(px, py, t, r - 1, constrained, early)
                elif t > t_first and 1 <= above and above <= s_range:
                    by_x = before[above - 1] + _symbol_score(px, py, t - 1, above - 1, constrained, early)
            after[r], x_share[t, r], y_share[t, r] = _join(by_x, by_y)
        before, after = after, before
        start_before = start
    return before[0]


@compiled
def _band_backward(s_begin, limits, options, x_share, y_share, occ_x, occ_y):  # noqa: ANN001, ANN202
    """Counts of the symbols and of all blanks, from the shares."""
    skew, constrained = options
    s_first, t_first, s_last, t_last = limits
    s_range = occ_x.shape[1]
    count, earlier = np.zeros(s_range), np.zeros(s_range)
    count[0] = 1.0
    for t in range(t_last, t_first - 1, -1):
        final = t == t_last
        start = s_last if final else s_begin[t]
        start_before = s_begin[t - 1] if t > t_first else start
        earlier[:] = 0.0
        for r in range(0 if final else s_range - 1, -1, -1):
            by_x, by_y = count[r] * x_share[t, r], count[r] * y_share[t, r]
            above = start + r - start_before
            if by_y > 0.0 and t > t_first:
                occ_y[t - 1, above] += by_y
                earlier[above] += by_y
            if by_x > 0.0 and skew:
                occ_x[t, r - 1] += by_x
                count[r - 1] += by_x
            elif by_x > 0.0:
                occ_x[t - 1, above - 1] += by_x
                earlier[above - 1] += by_x
                if constrained:
                    occ_y[t - 1, above] += by_x
        count, earlier = earlier, count


@kernel(n_args=13, n_floats=1)
def band_lattice(data):  # noqa: ANN001, ANN201
    """One utterance a row.

    args: T, s_range, skew, constrained, want_grad, px, py (B, T, s_range) float64, s_begin (B, T), boundary (B, 4), losses (B,)
    float64, occ_x, occ_y (B, T, s_range) float64, scratch (B, 2, T + 1, s_range) float64; floats: delay penalty.
    """
    args, floats = arguments(data, 13, 1)
    frames, s_range, options = args[0], args[1], (args[2] != 0, args[3] != 0)
    cells = frames * s_range
    begin, end = next_piece(data)
    while begin < end:
        for b in range(begin, end):
            at = 8 * b * cells
            px, py = (
                f64_array(args[5] + at, cells).reshape(frames, s_range),
                f64_array(args[6] + at, cells).reshape(frames, s_range),
            )
            s_begin, row = i64_array(args[7] + 8 * b * frames, frames), i64_array(args[8] + 32 * b, 4)
            limits = (row[0], row[1], row[2], row[3])
            shares = f64_array(args[12] + 16 * b * (cells + s_range), 2 * (cells + s_range)).reshape(
                2, frames + 1, s_range
            )
            total = _band_forward(px, py, s_begin, limits, options, floats[0], shares[0], shares[1])
            f64_array(args[9] + 8 * b, 1)[0] = np.inf if total <= UNREACHED else -total
            if args[4] != 0:
                occ_x = f64_array(args[10] + at, cells).reshape(frames, s_range)
                occ_y = f64_array(args[11] + at, cells).reshape(frames, s_range)
                occ_x[:] = 0.0
                occ_y[:] = 0.0
                if total > UNREACHED:
                    _band_backward(s_begin, limits, options, shares[0], shares[1], occ_x, occ_y)
        begin, end = next_piece(data)


@compiled
def _pruned_gradient_row(x, grad, norm, count_x, count_y, label, blank):  # noqa: ANN001, ANN202
    both, shift = x.dtype.type(count_x + count_y), x.dtype.type(norm)
    for v in range(x.size):
        grad[v] = both * exp(x[v] - shift)
    grad[label] -= x.dtype.type(count_x)
    grad[blank] -= x.dtype.type(count_y)


@kernel(n_args=16)
def pruned_gradient(data):  # noqa: ANN001, ANN201
    """One row (b, t, r) of the band a row.

    args: bytes per element, B, T, S, s_range, C, blank, logits, grad (B, T, s_range, C), symbols (B, S), s_begin (B, T),
    boundary (B, 4), norm, occ_x, occ_y (B, T, s_range) float64, scale (B,) float64.
    """
    args, _ = arguments(data, 16, 1)
    size, batch, frames, num, s_range, columns, blank = (
        args[0],
        args[1],
        args[2],
        args[3],
        args[4],
        args[5],
        args[6],
    )
    symbols, s_begin, boundary = (
        i64_array(args[9], batch * num),
        i64_array(args[10], batch * frames),
        i64_array(args[11], 4 * batch),
    )
    rows = batch * frames * s_range
    norm, occ_x, occ_y, scale = (
        f64_array(args[12], rows),
        f64_array(args[13], rows),
        f64_array(args[14], rows),
        f64_array(args[15], batch),
    )
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            b, s, inside = _row_place(row, frames, s_range, s_begin, boundary)
            count_x, count_y = occ_x[row] * scale[b], occ_y[row] * scale[b]
            used = inside and count_x + count_y != 0.0
            label = symbols[b * num + s] if inside and s < num else blank
            at = size * row * columns
            if size == 4:
                grad = f32_array(args[8] + at, columns)
                if used:
                    _pruned_gradient_row(
                        f32_array(args[7] + at, columns), grad, norm[row], count_x, count_y, label, blank
                    )
                else:
                    grad[:] = np.float32(0.0)
            else:
                grad64 = f64_array(args[8] + at, columns)
                if used:
                    _pruned_gradient_row(
                        f64_array(args[7] + at, columns), grad64, norm[row], count_x, count_y, label, blank
                    )
                else:
                    grad64[:] = 0.0
        begin, end = next_piece(data)

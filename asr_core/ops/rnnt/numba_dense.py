"""CPU kernels of the simple (factorised) RNN-T loss; what they compute is said in the torch back end."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, f64_array, i64_array, kernel, next_piece
from asr_core.ops.rnnt.lattice import LARGEST_WEIGHT
from asr_core.ops.rnnt.numba_math import NEVER, UNREACHED, compiled, compiled_exactly, exp, log1p


@compiled_exactly
def _frame_scores(frame, labels, contexts, frames, log_dot, early, options, scales, px, py):  # noqa: ANN001, ANN202
    """Scores of the arcs that leave the cells of one frame."""
    dtype = frame.dtype.type
    blank, constrained = options[0], options[2]
    scale, am_scale = dtype(scales[0]), dtype(scales[1])
    lm_symbol, lm_blank, lm_max, context_symbol, context_blank = contexts
    am_max, offset = frames
    am_blank = frame[blank]
    for i in range(py.size):
        norm = (log_dot[i] + lm_max[i]) + am_max
        py[i] = ((am_blank + lm_blank[i]) - norm) * scale + context_blank[i]
        if i < px.size:
            px[i] = ((frame[labels[i]] + lm_symbol[i]) - norm) * scale + context_symbol[i]
    if scale == dtype(0.0):
        # no part of lm + am, which may be infinite
        py[:] = context_blank
        px[:] = context_symbol[: px.size]
    if am_scale != dtype(0.0):
        for i in range(py.size):
            py[i] += am_scale * am_blank + offset
        for i in range(px.size):
            px[i] += am_scale * frame[labels[i]] + offset
    if constrained:
        for i in range(px.size):
            px[i] += py[i + 1]
    for i in range(px.size):
        px[i] += early


@compiled
def _arrivals(am, contexts, frames, log_dot, symbols, limits, options, scales, x, y):  # noqa: ANN001, ANN202
    """Fill x and y (rows, contexts): scores of the arcs that arrive at each cell; row = frame (+ context in a skewed lattice)."""
    dtype = am.dtype.type
    never, penalty, skew = dtype(NEVER), dtype(scales[2]), options[1]
    s_first, t_first, s_last, t_last = limits
    num = s_last - s_first
    px, py = np.empty(num, am.dtype), np.empty(num + 1, am.dtype)
    near = (
        contexts[0, s_first : s_last + 1],
        contexts[1, s_first : s_last + 1],
        contexts[2, s_first : s_last + 1],
        contexts[3, s_first : s_last + 1],
        contexts[4, s_first : s_last + 1],
    )
    labels = symbols[s_first:s_last]
    x[:] = never
    y[:] = never
    for t in range(t_first, t_last):
        early = penalty * (dtype(t_last - 1) * dtype(0.5) - dtype(t))
        logs = log_dot[t, s_first : s_last + 1]
        _frame_scores(am[t], labels, near, (frames[0, t], frames[1, t]), logs, early, options, scales, px, py)
        row = t - t_first + 1
        for i in range(num + 1):
            y[row + i * skew, i] = never if py[i] < never else py[i]
        for i in range(num):
            x[row + i * skew, i + 1] = never if px[i] < never else px[i]


@compiled_exactly
def _forward_row(before, after, x, y):  # noqa: ANN001, ANN202
    """One row of the recursion; the scores in x and y are replaced by the shares of the two arcs. before[0] stands left of it."""
    for i in range(x.size):
        by_x, by_y = before[i] + x[i], before[i + 1] + y[i]
        total = (by_x if by_x > by_y else by_y) + log1p(exp(-abs(by_x - by_y)))
        after[i + 1] = total
        x[i] = exp(by_x - total)
        y[i] = x.dtype.type(1.0) - x[i]


@compiled
def _recursion(x, y, want_grad):  # noqa: ANN001, ANN202
    """Total score of the last cell; with want_grad, x and y become occupation counts of the arcs."""
    num_rows, width = x.shape
    before, after = np.empty(width + 1, x.dtype), np.empty(width + 1, x.dtype)
    before[:] = x.dtype.type(NEVER)
    after[:] = x.dtype.type(NEVER)
    before[1] = 0
    for n in range(1, num_rows):
        _forward_row(before, after, x[n], y[n])
        before, after = after, before
    total = before[width]
    if not want_grad or not total > UNREACHED:
        return total
    count = np.zeros(width + 1, x.dtype)
    count[width - 1] = 1
    for n in range(num_rows - 1, 0, -1):
        x_row, y_row = x[n], y[n]
        for i in range(width):
            x_row[i] *= count[i]
            y_row[i] *= count[i]
        for i in range(width - 1):
            count[i] = y_row[i] + x_row[i + 1]
        count[width - 1] = y_row[width - 1]
    return total


@compiled
def _counts(x, y, dot, limits, options, scales, occ_x, occ_y, weights):  # noqa: ANN001, ANN202
    """Counts by frame and context, and the weights of the normalisers, from those by arrival (the reverse of _arrivals)."""
    dtype = dot.dtype.type
    skew, constrained = options[1], options[2]
    scale, largest = dtype(scales[0]), dtype(LARGEST_WEIGHT)
    s_first, t_first, s_last, t_last = limits
    num = s_last - s_first
    for t in range(t_first, t_last):
        row = t - t_first + 1
        to_x, to_y, to_weight = (
            occ_x[t, s_first:s_last],
            occ_y[t, s_first : s_last + 1],
            weights[t, s_first : s_last + 1],
        )
        sums = dot[t, s_first : s_last + 1]
        for i in range(num):
            to_x[i] = x[row + i * skew, i + 1]
        for i in range(num + 1):
            to_y[i] = y[row + i * skew, i]
            to_weight[i] = to_y[i]
        for i in range(num):
            to_weight[i] += to_x[i]
        if constrained:
            for i in range(num):
                to_weight[i + 1] += to_x[i]
        for i in range(num + 1):
            weight = scale * to_weight[i] / sums[i]
            to_weight[i] = largest if weight > largest else weight


@compiled
def _utterance(
    am, contexts, frames, dot, log_dot, symbols, limits, options, scales, want_grad, occ_x, occ_y, weights
):  # noqa: ANN001, ANN202
    s_first, t_first, s_last, t_last = limits
    num = s_last - s_first
    rows = t_last - t_first + options[1] * num + 1
    x, y = np.empty((rows, num + 1), am.dtype), np.empty((rows, num + 1), am.dtype)
    _arrivals(am, contexts, frames, log_dot, symbols, limits, options, scales, x, y)
    total = _recursion(x, y, want_grad)
    if want_grad:
        occ_x[:] = 0
        occ_y[:] = 0
        weights[:] = 0
        if total > UNREACHED:
            _counts(x, y, dot, limits, options, scales, occ_x, occ_y, weights)
    return np.inf if total <= UNREACHED else -np.float64(total)


@kernel(n_args=19, n_floats=3)
def simple_lattice(data):  # noqa: ANN001, ANN201
    """One utterance a row.

    args: bytes per element, T, S, C, rows of occ_x, blank, skew, constrained, want_grad, am (B, T, C), context parts (B, 5, S + 1),
    am_max and frame (B, 2, T), dot and its logarithm (B, T, S + 1), symbols (B, S), boundary (B, 4), losses (B,) float64,
    occ_x (B, rows, S), then one block of occ_y and weights (2, B, T, S + 1); floats: scale, am_scale, delay penalty.
    """
    args, scales = arguments(data, 19, 3)
    size, frames, num, columns, x_rows = args[0], args[1], args[2], args[3], args[4]
    options, want_grad = (args[5], args[6], args[7]), args[8] != 0
    width, cells = num + 1, frames * (num + 1)
    total = data[3]
    begin, end = next_piece(data)
    while begin < end:
        for b in range(begin, end):
            symbols, row = i64_array(args[14] + 8 * b * num, num), i64_array(args[15] + 32 * b, 4)
            limits = (row[0], row[1], row[2], row[3])
            loss = f64_array(args[16] + 8 * b, 1)
            at_am, at_context, at_frame = (
                size * b * frames * columns,
                size * 5 * b * width,
                size * 2 * b * frames,
            )
            at_dot, at_x, at_weight = size * b * cells, size * b * x_rows * num, size * (total + b) * cells
            if size == 4:
                loss[0] = _utterance(
                    f32_array(args[9] + at_am, frames * columns).reshape(frames, columns),
                    f32_array(args[10] + at_context, 5 * width).reshape(5, width),
                    f32_array(args[11] + at_frame, 2 * frames).reshape(2, frames),
                    f32_array(args[12] + at_dot, cells).reshape(frames, width),
                    f32_array(args[13] + at_dot, cells).reshape(frames, width),
                    symbols,
                    limits,
                    options,
                    scales,
                    want_grad,
                    f32_array(args[17] + at_x, x_rows * num).reshape(x_rows, num),
                    f32_array(args[18] + at_dot, cells).reshape(frames, width),
                    f32_array(args[18] + at_weight, cells).reshape(frames, width),
                )
            else:
                loss[0] = _utterance(
                    f64_array(args[9] + at_am, frames * columns).reshape(frames, columns),
                    f64_array(args[10] + at_context, 5 * width).reshape(5, width),
                    f64_array(args[11] + at_frame, 2 * frames).reshape(2, frames),
                    f64_array(args[12] + at_dot, cells).reshape(frames, width),
                    f64_array(args[13] + at_dot, cells).reshape(frames, width),
                    symbols,
                    limits,
                    options,
                    scales,
                    want_grad,
                    f64_array(args[17] + at_x, x_rows * num).reshape(x_rows, num),
                    f64_array(args[18] + at_dot, cells).reshape(frames, width),
                    f64_array(args[18] + at_weight, cells).reshape(frames, width),
                )
        begin, end = next_piece(data)


@compiled
def _am_gradient_row(grad, probs, occ_x, occ_y, symbols, blank, scale):  # noqa: ANN001, ANN202
    for v in range(grad.size):
        grad[v] *= probs[v]
    blanks = scale * occ_y[occ_y.size - 1]
    for s in range(symbols.size):
        grad[symbols[s]] -= scale * occ_x[s]
        blanks += scale * occ_y[s]
    grad[blank] -= blanks


@kernel(n_args=12)
def am_gradient(data):  # noqa: ANN001, ANN201
    """One frame a row.

    args: bytes per element, T, S, C, rows of occ_x, blank, grad (B, T, C), probs (B, T, C), occ_x (B, rows, S), occ_y (B, T, S + 1),
    symbols (B, S), scale (B,).
    """
    args, _ = arguments(data, 12, 1)
    size, frames, num, columns, x_rows, blank = args[0], args[1], args[2], args[3], args[4], args[5]
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            b, t = row // frames, row % frames
            at, at_x, at_y = size * row * columns, size * (b * x_rows + t) * num, size * row * (num + 1)
            symbols = i64_array(args[10] + 8 * b * num, num)
            if size == 4:
                grad, probs = f32_array(args[6] + at, columns), f32_array(args[7] + at, columns)
                occ_x, occ_y = f32_array(args[8] + at_x, num), f32_array(args[9] + at_y, num + 1)
                _am_gradient_row(grad, probs, occ_x, occ_y, symbols, blank, f32_array(args[11] + 4 * b, 1)[0])
            else:
                grad64, probs64 = f64_array(args[6] + at, columns), f64_array(args[7] + at, columns)
                occ_x64, occ_y64 = f64_array(args[8] + at_x, num), f64_array(args[9] + at_y, num + 1)
                _am_gradient_row(
                    grad64, probs64, occ_x64, occ_y64, symbols, blank, f64_array(args[11] + 8 * b, 1)[0]
                )
        begin, end = next_piece(data)

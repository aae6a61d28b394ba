"""CPU kernels of the simple (factorised) RNN-T loss.

The functions of the torch back end define what they compute.

Inside compiled functions x is the arc of a symbol, y that of a blank. ``skew`` is 1 in a regular
lattice, whose rows of the recursion are the diagonals frame + context; a modified one has a row per
frame. NaN among the scores must come through, so comparisons are written such that they are false
for it.
"""

from typing import NamedTuple

import numpy as np

from asr_core.ops.cpu.arrays import Address, Zero, f64_array, float_array, i64_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece
from asr_core.ops.rnnt.lattice import LARGEST_WEIGHT, NEVER, UNREACHED
from asr_core.ops.rnnt.numba_math import Limits, compiled, compiled_exactly, exp, limits_of, log1p


class SimpleLattice(NamedTuple):
    """Factorised lattices; their parts are those of :class:`asr_core.ops.rnnt.backend.Factors`.

    am (B, T, C); contexts (B, 5, S + 1): lm_symbol, lm_blank, lm_max, context_symbol,
    context_blank; frames (B, 2, T): am_max, frame; dot (B, T, S + 1) and log_dot (B, T, S + 1);
    symbols (B, S) and boundary (B, 4) int64; losses (B,) float64; counts occ_x (B, rows, S) and
    occ_y (B, T, S + 1), and weights (B, T, S + 1), all three only with ``want_grad``. Elements have
    ``itemsize`` bytes, unless noted otherwise.
    """

    am: Address
    contexts: Address
    frames: Address
    dot: Address
    log_dot: Address
    symbols: Address
    boundary: Address
    losses: Address
    occ_x: Address
    occ_y: Address
    weights: Address
    itemsize: int
    T: int
    S: int
    C: int
    rows: int
    blank: int
    skew: int
    constrained: int
    want_grad: int
    scale: float
    am_scale: float
    delay_penalty: float


class _Contexts(NamedTuple):
    """The contexts' parts of the scores, (S + 1,) each, or those inside the boundary."""

    lm_symbol: np.ndarray
    lm_blank: np.ndarray
    lm_max: np.ndarray
    symbol: np.ndarray
    blank: np.ndarray


class _Frame(NamedTuple):
    """One frame: am (C,), its maximum and part of the scores, and log_dot (S + 1,), as far as it is
    inside the boundary.
    """

    am: np.ndarray
    am_max: float
    offset: float
    log_dot: np.ndarray


class _Utterance(NamedTuple):
    """One utterance: am (T, C), contexts (5, S + 1), frames (2, T), dot (T, S + 1), log_dot (T, S +
    1), symbols (S,).
    """

    am: np.ndarray
    contexts: np.ndarray
    frames: np.ndarray
    dot: np.ndarray
    log_dot: np.ndarray
    symbols: np.ndarray


class _Results(NamedTuple):
    """Output arrays of one utterance: occ_x (rows, S), occ_y (T, S + 1), weights (T, S + 1)."""

    occ_x: np.ndarray
    occ_y: np.ndarray
    weights: np.ndarray


@compiled_exactly
def _frame_scores(
    frame: _Frame,
    labels: np.ndarray,
    near: _Contexts,
    early: float,
    a: SimpleLattice,
    px: np.ndarray,
    py: np.ndarray,
) -> None:
    """Write the scores of the arcs that leave the cells of one frame: px (S,) and py (S + 1,);
    labels (S,).
    """
    am = frame.am
    dtype = am.dtype.type
    scale, am_scale = dtype(a.scale), dtype(a.am_scale)
    am_blank = am[a.blank]
    for i in range(py.size):
        norm = (frame.log_dot[i] + near.lm_max[i]) + frame.am_max
        py[i] = ((am_blank + near.lm_blank[i]) - norm) * scale + near.blank[i]
        if i < px.size:
            px[i] = ((am[labels[i]] + near.lm_symbol[i]) - norm) * scale + near.symbol[i]
    if scale == dtype(0.0):
        # no part of lm + am, which may be infinite
        py[:] = near.blank
        px[:] = near.symbol[: px.size]
    if am_scale != dtype(0.0):
        for i in range(py.size):
            py[i] += am_scale * am_blank + frame.offset
        for i in range(px.size):
            px[i] += am_scale * am[labels[i]] + frame.offset
    if a.constrained:
        for i in range(px.size):
            px[i] += py[i + 1]
    for i in range(px.size):
        px[i] += early


@compiled
def _arrivals(u: _Utterance, limits: Limits, a: SimpleLattice, x: np.ndarray, y: np.ndarray) -> None:
    """Fill x (rows, W) and y (rows, W) with the scores of the arcs that arrive at each cell.

    A row is a frame, or in a skewed lattice frame + context.
    """
    dtype = u.am.dtype.type
    never, penalty, skew = dtype(NEVER), dtype(a.delay_penalty), a.skew
    s_first, t_first, s_last, t_last = limits
    num = s_last - s_first
    px, py = np.empty(num, u.am.dtype), np.empty(num + 1, u.am.dtype)
    near = _Contexts(
        u.contexts[0, s_first : s_last + 1],
        u.contexts[1, s_first : s_last + 1],
        u.contexts[2, s_first : s_last + 1],
        u.contexts[3, s_first : s_last + 1],
        u.contexts[4, s_first : s_last + 1],
    )
    labels = u.symbols[s_first:s_last]
    x[:] = never
    y[:] = never
    for t in range(t_first, t_last):
        early = penalty * (dtype(t_last - 1) * dtype(0.5) - dtype(t))
        frame = _Frame(u.am[t], u.frames[0, t], u.frames[1, t], u.log_dot[t, s_first : s_last + 1])
        _frame_scores(frame, labels, near, early, a, px, py)
        row = t - t_first + 1
        for i in range(num + 1):
            y[row + i * skew, i] = never if py[i] < never else py[i]
        for i in range(num):
            x[row + i * skew, i + 1] = never if px[i] < never else px[i]


@compiled_exactly
def _forward_row(before: np.ndarray, after: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Advance by one row, from the scores before (W + 1,) to after (W + 1,), of which the first
    stands left of the lattice.

    The shares of the two arcs that arrive at each cell replace the arcs' scores in x (W,) and y
    (W,).
    """
    for i in range(x.size):
        by_x, by_y = before[i] + x[i], before[i + 1] + y[i]
        total = (by_x if by_x > by_y else by_y) + log1p(exp(-abs(by_x - by_y)))
        after[i + 1] = total
        x[i] = exp(by_x - total)
        y[i] = x.dtype.type(1.0) - x[i]


@compiled
def _recursion(x: np.ndarray, y: np.ndarray, want_grad: bool) -> float:
    """Return the total score of the last cell.

    With want_grad, x (rows, W) and y (rows, W) become occupation counts of the arcs.
    """
    num_rows, width = x.shape
    before, after = np.empty(width + 1, x.dtype), np.empty(width + 1, x.dtype)
    before[:] = x.dtype.type(NEVER)
    after[:] = x.dtype.type(NEVER)
    before[1] = 0
    for n in range(1, num_rows):
        _forward_row(before, after, x[n], y[n])
        before, after = after, before
    total = float(before[width])
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
def _counts(
    x: np.ndarray, y: np.ndarray, u: _Utterance, limits: Limits, a: SimpleLattice, to: _Results
) -> None:
    """Sort counts by arrival, x (rows, W) and y (rows, W), by frame and context (the reverse of
    _arrivals); compute the weights.
    """
    dtype = u.dot.dtype.type
    skew, scale, largest = a.skew, dtype(a.scale), dtype(LARGEST_WEIGHT)
    s_first, t_first, s_last, t_last = limits
    num = s_last - s_first
    for t in range(t_first, t_last):
        row = t - t_first + 1
        to_x, to_y = to.occ_x[t, s_first:s_last], to.occ_y[t, s_first : s_last + 1]
        to_weight, sums = to.weights[t, s_first : s_last + 1], u.dot[t, s_first : s_last + 1]
        for i in range(num):
            to_x[i] = x[row + i * skew, i + 1]
        for i in range(num + 1):
            to_y[i] = y[row + i * skew, i]
            to_weight[i] = to_y[i]
        for i in range(num):
            to_weight[i] += to_x[i]
        if a.constrained:
            for i in range(num):
                to_weight[i + 1] += to_x[i]
        for i in range(num + 1):
            weight = scale * to_weight[i] / sums[i]
            to_weight[i] = largest if weight > largest else weight


@compiled
def _utterance_loss(a: SimpleLattice, b: int, zero: Zero) -> float:
    """Return the loss of utterance b, and write its results; ``zero`` has the elements' type."""
    T, S, C, cells = a.T, a.S, a.C, a.T * (a.S + 1)
    limits = limits_of(a.boundary, b)
    at_dot, at_x = a.itemsize * b * cells, a.itemsize * b * a.rows * S
    u = _Utterance(
        float_array(zero, a.am + a.itemsize * b * T * C, T * C).reshape(T, C),
        float_array(zero, a.contexts + a.itemsize * 5 * b * (S + 1), 5 * (S + 1)).reshape(5, S + 1),
        float_array(zero, a.frames + a.itemsize * 2 * b * T, 2 * T).reshape(2, T),
        float_array(zero, a.dot + at_dot, cells).reshape(T, S + 1),
        float_array(zero, a.log_dot + at_dot, cells).reshape(T, S + 1),
        i64_array(a.symbols + 8 * b * S, S),
    )
    num = limits.s_last - limits.s_first
    rows = limits.t_last - limits.t_first + a.skew * num + 1
    x, y = np.empty((rows, num + 1), u.am.dtype), np.empty((rows, num + 1), u.am.dtype)
    _arrivals(u, limits, a, x, y)
    total = _recursion(x, y, a.want_grad != 0)
    if a.want_grad:
        to = _Results(
            float_array(zero, a.occ_x + at_x, a.rows * S).reshape(a.rows, S),
            float_array(zero, a.occ_y + at_dot, cells).reshape(T, S + 1),
            float_array(zero, a.weights + at_dot, cells).reshape(T, S + 1),
        )
        to.occ_x[:] = 0
        to.occ_y[:] = 0
        to.weights[:] = 0
        if total > UNREACHED:
            _counts(x, y, u, limits, a, to)
    return np.inf if total <= UNREACHED else -np.float64(total)


@kernel(SimpleLattice)
def simple_lattice(data: Pointer) -> None:
    """Compute losses, counts and weights; a kernel row is an utterance."""
    a = fields(SimpleLattice, data)
    begin, end = next_piece(data)
    while begin < end:
        losses = f64_array(a.losses, end)
        for b in range(begin, end):
            losses[b] = (
                _utterance_loss(a, b, np.float32(0.0))
                if a.itemsize == 4
                else _utterance_loss(a, b, np.float64(0.0))
            )
        begin, end = next_piece(data)


class AmGradient(NamedTuple):
    """The gradient of the frames' part: grad (B, T, C), which holds a product, and probs (B, T, C).

    Counts occ_x (B, rows, S) and occ_y (B, T, S + 1); symbols (B, S) int64, scale (B,). Elements
    have ``itemsize`` bytes.
    """

    grad: Address
    probs: Address
    occ_x: Address
    occ_y: Address
    symbols: Address
    scale: Address
    itemsize: int
    T: int
    S: int
    rows: int
    C: int
    blank: int


@compiled
def _frame_gradient(a: AmGradient, row: int, zero: Zero) -> None:
    """Multiply grad (C,) of frame ``row`` = b * T + t by probs (C,), and subtract the scaled
    counts.
    """
    S, C, b, t = a.S, a.C, row // a.T, row % a.T
    grad, probs = (
        float_array(zero, a.grad + a.itemsize * row * C, C),
        float_array(zero, a.probs + a.itemsize * row * C, C),
    )
    occ_x = float_array(zero, a.occ_x + a.itemsize * (b * a.rows + t) * S, S)
    occ_y = float_array(zero, a.occ_y + a.itemsize * row * (S + 1), S + 1)
    symbols, scale = i64_array(a.symbols + 8 * b * S, S), float_array(zero, a.scale + a.itemsize * b, 1)[0]
    for v in range(C):
        grad[v] *= probs[v]
    blanks = scale * occ_y[S]
    for s in range(S):
        grad[symbols[s]] -= scale * occ_x[s]
        blanks += scale * occ_y[s]
    grad[a.blank] -= blanks


@kernel(AmGradient)
def am_gradient(data: Pointer) -> None:
    """Complete grad; a kernel row is a frame b * T + t."""
    a = fields(AmGradient, data)
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            if a.itemsize == 4:
                _frame_gradient(a, row, np.float32(0.0))
            else:
                _frame_gradient(a, row, np.float64(0.0))
        begin, end = next_piece(data)

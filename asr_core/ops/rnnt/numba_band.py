"""CPU kernels of the pruned RNN-T loss.

The functions of the torch back end define what they compute.

Inside compiled functions x is the arc of a symbol, y that of a blank. ``skew`` is 1 in a regular
lattice, where a symbol stays on its frame, else 0. NaN among the scores must come through, so
comparisons are written such that they are false for it.
"""

import math
from typing import NamedTuple, Tuple

import numpy as np

from asr_core.ops.cpu.arrays import Address, f32_array, f64_array, i64_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece
from asr_core.ops.rnnt.lattice import NEVER, UNREACHED
from asr_core.ops.rnnt.numba_math import Limits, compiled, exp, limits_of, row_max, sum_exp


class BandRows(NamedTuple):
    """The rows (b, t, r) of a band: R contexts of each frame, C logits each.

    logits (B, T, R, C) and grad (B, T, R, C) have elements of ``itemsize`` bytes; symbols (B, S),
    s_begin (B, T), boundary (B, 4) int64; float64 norm (B, T, R), and of the symbols and of the
    blanks x (B, T, R) and y (B, T, R): scores, which :func:`pruned_scores` computes, or counts, of
    which :func:`pruned_gradient` makes the gradient; scale (B,) float64.
    """

    logits: Address
    grad: Address
    symbols: Address
    s_begin: Address
    boundary: Address
    norm: Address
    x: Address
    y: Address
    scale: Address
    itemsize: int
    B: int
    T: int
    S: int
    R: int
    C: int
    blank: int


class _Place(NamedTuple):
    """Place of a row (b, t, r): utterance, context, and the symbol that follows (blank at s = S).

    ``inside`` says whether it lies inside the utterance's lattice.
    """

    b: int
    s: int
    label: int
    inside: bool


@compiled
def _place(row: int, a: BandRows) -> _Place:
    """Locate a row (b, t, r)."""
    cell = row // a.R
    b, t = cell // a.T, cell % a.T
    s = i64_array(a.s_begin, cell + 1)[cell] + row % a.R
    limits = limits_of(a.boundary, b)
    inside = limits.t_first <= t and t < limits.t_last and limits.s_first <= s and s <= limits.s_last
    label = a.blank
    if inside and s < a.S:
        label = i64_array(a.symbols + 8 * b * a.S, a.S)[s]
    return _Place(b, s, label, inside)


@compiled
def _log_norm(x: np.ndarray) -> float:
    """Return the logarithm of the sum of exponentials of a row (C,)."""
    largest = row_max(x)
    return np.float64(largest) + math.log(sum_exp(x, largest))


@compiled
def _row_scores(x: np.ndarray, label: int, blank: int) -> Tuple[float, float, float]:
    """Return the normaliser of a row of logits (C,) and the log-probabilities of its label and of
    the blank.
    """
    norm = _log_norm(x)
    return norm, np.float64(x[label]) - norm, np.float64(x[blank]) - norm


@kernel(BandRows)
def pruned_scores(data: Pointer) -> None:
    """Compute norm, x and y from the logits; a kernel row is a row (b, t, r)."""
    a = fields(BandRows, data)
    rows = a.B * a.T * a.R
    px, py, norm = f64_array(a.x, rows), f64_array(a.y, rows), f64_array(a.norm, rows)
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            at = _place(row, a)
            px[row] = NEVER
            py[row] = NEVER
            norm[row] = 0.0
            if not at.inside:
                continue
            start = a.logits + a.itemsize * row * a.C
            if a.itemsize == 4:
                norm[row], score, py[row] = _row_scores(f32_array(start, a.C), at.label, a.blank)
            else:
                norm[row], score, py[row] = _row_scores(f64_array(start, a.C), at.label, a.blank)
            if at.s < a.S:
                px[row] = score
        begin, end = next_piece(data)


@compiled
def _row_gradient(
    x: np.ndarray, grad: np.ndarray, norm: float, count_x: float, count_y: float, label: int, blank: int
) -> None:
    """Write the gradient of a row of logits x (C,) to grad (C,)."""
    both, shift = x.dtype.type(count_x + count_y), x.dtype.type(norm)
    for v in range(x.size):
        grad[v] = both * exp(x[v] - shift)
    grad[label] -= x.dtype.type(count_x)
    grad[blank] -= x.dtype.type(count_y)


@kernel(BandRows)
def pruned_gradient(data: Pointer) -> None:
    """Compute grad from the logits, norm, the counts x and y, and scale.

    A kernel row is a row (b, t, r).
    """
    a = fields(BandRows, data)
    rows = a.B * a.T * a.R
    norm, occ_x, occ_y = f64_array(a.norm, rows), f64_array(a.x, rows), f64_array(a.y, rows)
    scale = f64_array(a.scale, a.B)
    begin, end = next_piece(data)
    while begin < end:
        for row in range(begin, end):
            at = _place(row, a)
            count_x, count_y = occ_x[row] * scale[at.b], occ_y[row] * scale[at.b]
            used = at.inside and count_x + count_y != 0.0
            start = a.itemsize * row * a.C
            if a.itemsize == 4:
                x, grad = f32_array(a.logits + start, a.C), f32_array(a.grad + start, a.C)
                if used:
                    _row_gradient(x, grad, norm[row], count_x, count_y, at.label, a.blank)
                else:
                    grad[:] = np.float32(0.0)
            else:
                x64, grad64 = f64_array(a.logits + start, a.C), f64_array(a.grad + start, a.C)
                if used:
                    _row_gradient(x64, grad64, norm[row], count_x, count_y, at.label, a.blank)
                else:
                    grad64[:] = 0.0
        begin, end = next_piece(data)


class BandRecursion(NamedTuple):
    """The recursion over each utterance's lattice.

    Scores px (B, T, R) and py (B, T, R) float64, s_begin (B, T), boundary (B, 4) int64; float64
    losses (B,), counts occ_x (B, T, R) and occ_y (B, T, R) or 0 if they are not wanted; scratch (B,
    2, T + 1, R) float64.
    """

    px: Address
    py: Address
    s_begin: Address
    boundary: Address
    losses: Address
    occ_x: Address
    occ_y: Address
    scratch: Address
    T: int
    R: int
    skew: int
    constrained: int
    delay_penalty: float


class _Utterance(NamedTuple):
    """Scores of one utterance: px (T, R), py (T, R), first contexts s_begin (T,)."""

    px: np.ndarray
    py: np.ndarray
    s_begin: np.ndarray


@compiled
def _join(by_x: float, by_y: float) -> Tuple[float, float, float]:
    """Return log(e^by_x + e^by_y), and the shares of the two."""
    difference = by_x - by_y
    ratio = math.exp(-abs(difference))
    total = (by_x if by_x > by_y else by_y) + math.log1p(ratio)
    larger, smaller = 1.0 / (1.0 + ratio), ratio / (1.0 + ratio)
    return (total, larger, smaller) if difference >= 0 else (total, smaller, larger)


@compiled
def _symbol_score(u: _Utterance, t: int, r: int, constrained: bool, early: float) -> float:
    """Return the score of the symbol that leaves (t, r), with the forced blank of the next context
    and the delay penalty.
    """
    score = u.px[t, r] + early
    if constrained:
        score += u.py[t, r + 1] if r + 1 < u.py.shape[1] else NEVER
    # NaN stays NaN
    return NEVER if score < NEVER else score


@compiled
def _band_forward(
    u: _Utterance, limits: Limits, a: BandRecursion, x_share: np.ndarray, y_share: np.ndarray
) -> float:
    """Return the total score of one utterance.

    Writes the shares of the arcs that arrive at each cell to x_share (T + 1, R) and y_share (T + 1,
    R); row t_last holds the last cell alone.
    """
    skew, constrained = a.skew != 0, a.constrained != 0
    s_range = u.px.shape[1]
    before, after = (
        np.full(s_range, NEVER),
        np.full(s_range, NEVER),
    )  # scores of the windows of frames t - 1 and t
    start_before = limits.s_first
    for t in range(limits.t_first, limits.t_last + 1):
        final = t == limits.t_last
        start = limits.s_last if final else u.s_begin[t]
        early = a.delay_penalty * ((limits.t_last - 1) * 0.5 - (t if skew else t - 1))
        for r in range(1 if final else s_range):
            s = start + r
            after[r] = NEVER
            x_share[t, r] = 0.0
            y_share[t, r] = 0.0
            if s < limits.s_first or s > limits.s_last:
                continue
            if t == limits.t_first and s == limits.s_first:
                after[r] = 0.0
                continue
            by_x, by_y = NEVER, NEVER
            above = s - start_before  # place of context s in the window of frame t - 1
            if t > limits.t_first and 0 <= above and above < s_range:
                score = u.py[t - 1, above]
                by_y = before[above] + (NEVER if score < NEVER else score)
            if s > limits.s_first:
                if skew:
                    if r > 0 and not final:
                        by_x = after[r - 1] + _symbol_score(u, t, r - 1, constrained, early)
                elif t > limits.t_first and 1 <= above and above <= s_range:
                    by_x = before[above - 1] + _symbol_score(u, t - 1, above - 1, constrained, early)
            after[r], x_share[t, r], y_share[t, r] = _join(by_x, by_y)
        before, after = after, before
        start_before = start
    return before[0]


@compiled
def _band_backward(
    s_begin: np.ndarray,
    limits: Limits,
    a: BandRecursion,
    x_share: np.ndarray,
    y_share: np.ndarray,
    occ_x: np.ndarray,
    occ_y: np.ndarray,
) -> None:
    """Propagate the last cell's probability back along the shares (T + 1, R): counts occ_x (T, R)
    and occ_y (T, R), all blanks.
    """
    skew, constrained = a.skew != 0, a.constrained != 0
    s_range = occ_x.shape[1]
    count, earlier = np.zeros(s_range), np.zeros(s_range)  # of the windows of frames t and t - 1
    count[0] = 1.0
    for t in range(limits.t_last, limits.t_first - 1, -1):
        final = t == limits.t_last
        start = limits.s_last if final else s_begin[t]
        start_before = s_begin[t - 1] if t > limits.t_first else start
        earlier[:] = 0.0
        for r in range(0 if final else s_range - 1, -1, -1):
            by_x, by_y = count[r] * x_share[t, r], count[r] * y_share[t, r]
            above = start + r - start_before
            if by_y > 0.0 and t > limits.t_first:
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


@kernel(BandRecursion)
def band_lattice(data: Pointer) -> None:
    """Compute losses and counts; a kernel row is an utterance."""
    a = fields(BandRecursion, data)
    T, R, cells = a.T, a.R, a.T * a.R
    begin, end = next_piece(data)
    while begin < end:
        for b in range(begin, end):
            at = 8 * b * cells
            px, py = f64_array(a.px + at, cells).reshape(T, R), f64_array(a.py + at, cells).reshape(T, R)
            utterance = _Utterance(px, py, i64_array(a.s_begin + 8 * b * T, T))
            limits = limits_of(a.boundary, b)
            shares = f64_array(a.scratch + 16 * b * (cells + R), 2 * (cells + R)).reshape(2, T + 1, R)
            total = _band_forward(utterance, limits, a, shares[0], shares[1])
            f64_array(a.losses + 8 * b, 1)[0] = np.inf if total <= UNREACHED else -total
            if a.occ_x != 0:
                occ_x = f64_array(a.occ_x + at, cells).reshape(T, R)
                occ_y = f64_array(a.occ_y + at, cells).reshape(T, R)
                occ_x[:] = 0.0
                occ_y[:] = 0.0
                if total > UNREACHED:
                    _band_backward(utterance.s_begin, limits, a, shares[0], shares[1], occ_x, occ_y)
        begin, end = next_piece(data)

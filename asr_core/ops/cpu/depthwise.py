"""Depthwise convolutions with the channels innermost, so that every tap is a vector operation and
nothing is transposed.

1-D: x (T, N, C) along T; weights (K, C). With ``chunk`` > 0 a tap never leaves its chunk of that
many frames. 2-D: x (N, T, F, C) along T and F; weights (KT, KF, C), both odd, zero padding that
keeps the size. Only the gradient of its weights is here: in the other directions torch is as fast.

The gradient with respect to the input is the convolution of dy with the taps in reverse order
(``flip``) and without bias.
"""

from typing import NamedTuple, Tuple

import numpy as np
from numba import njit

from asr_core.ops.cpu.arrays import Address, f32_array, i64_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece

f32 = np.float32


@njit(inline="always")
def _multiply_add(out: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Add x (C,) times y (C,) to out (C,)."""
    for c in range(out.size):
        out[c] += x[c] * y[c]


@njit(inline="always")
def _add(out: np.ndarray, x: np.ndarray) -> None:
    """Add x (C,) to out (C,)."""
    for c in range(out.size):
        out[c] += x[c]


@njit(inline="always")
def _chunk_of(t: int, chunk: int, T: int) -> Tuple[int, int]:
    """Return the frames [low, high) that frame t of T may see."""
    low = (t // chunk) * chunk if chunk > 0 else 0
    return low, min(T, low + chunk) if chunk > 0 else T


class Conv1d(NamedTuple):
    """Convolution along T with K taps; ``pad`` zeros stand before the first frame.

    :func:`conv1d` computes y (T, N, C) from x (T, N, C), w (K, C) and bias (C,) or 0.
    :func:`conv1d_weight_grad` takes the gradient of y in y (T, N, C), and adds those of the weights
    to w (P, K, C) and bias (P, C), which P parts of the frames have each to themselves.
    """

    x: Address
    w: Address
    bias: Address
    y: Address
    T: int
    N: int
    C: int
    K: int
    P: int
    pad: int
    chunk: int
    flip: int


@kernel(Conv1d)
def conv1d(data: Pointer) -> None:
    """Compute y[t] = bias + sum_k w[k] x[t + k - pad], with flip x[t - k + pad].

    A kernel row is a frame.
    """
    a = fields(Conv1d, data)
    T, C, pad, flip = a.T, a.C, a.pad, a.flip
    row = a.N * C
    x, w, y = f32_array(a.x, T * row), f32_array(a.w, a.K * C), f32_array(a.y, T * row)
    bias = f32_array(a.bias, C)
    begin, end = next_piece(data)
    while begin < end:
        for t in range(begin, end):
            low, high = _chunk_of(t, a.chunk, T)
            for n in range(a.N):
                out = y[t * row + n * C : t * row + (n + 1) * C]
                for c in range(C):
                    out[c] = bias[c] if a.bias != 0 else f32(0.0)
                for k in range(a.K):
                    s = t - k + pad if flip else t + k - pad
                    if s >= low and s < high:
                        _multiply_add(out, w[k * C : (k + 1) * C], x[s * row + n * C : s * row + (n + 1) * C])
        begin, end = next_piece(data)


@kernel(Conv1d)
def conv1d_weight_grad(data: Pointer) -> None:
    """Add dy[t] x[t + k - pad] to w[p, k] and dy[t] to bias[p] for the frames t of part p.

    A kernel row is a part.
    """
    a = fields(Conv1d, data)
    T, C, K, pad, P = a.T, a.C, a.K, a.pad, a.P
    row = a.N * C
    x, dy = f32_array(a.x, T * row), f32_array(a.y, T * row)
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            dw, db = f32_array(a.w + 4 * p * K * C, K * C), f32_array(a.bias + 4 * p * C, C)
            for t in range(p * T // P, (p + 1) * T // P):
                low, high = _chunk_of(t, a.chunk, T)
                for n in range(a.N):
                    g = dy[t * row + n * C : t * row + (n + 1) * C]
                    _add(db, g)
                    for k in range(K):
                        s = t + k - pad
                        if s >= low and s < high:
                            u = x[s * row + n * C : s * row + (n + 1) * C]
                            _multiply_add(dw[k * C : (k + 1) * C], g, u)
        begin, end = next_piece(data)


class Conv2dWeightGrad(NamedTuple):
    """x and dy (N, T, F, C), of which x counts as zero after lens (N,) int64 frames; dw (P, KT, KF,
    C) and db (P, C), sums over P parts of the frames, zeroed.
    """

    x: Address
    dy: Address
    dw: Address
    db: Address
    lens: Address
    N: int
    T: int
    F: int
    C: int
    KT: int
    KF: int
    P: int


@kernel(Conv2dWeightGrad)
def conv2d_weight_grad(data: Pointer) -> None:
    """Add dy[t, f] x[t + i - KT // 2, f + j - KF // 2] to dw[p, i, j] and dy to db[p].

    A kernel row is a part of the N T frames.
    """
    a = fields(Conv2dWeightGrad, data)
    T, F, C, KT, KF, P = a.T, a.F, a.C, a.KT, a.KF, a.P
    row, frames, lens = F * C, a.N * T, i64_array(a.lens, a.N)
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            dw, db = f32_array(a.dw + 4 * p * KT * KF * C, KT * KF * C), f32_array(a.db + 4 * p * C, C)
            for r in range(p * frames // P, (p + 1) * frames // P):
                n, t = r // T, r % T
                x, dy = f32_array(a.x + 4 * n * T * row, T * row), f32_array(a.dy + 4 * r * row, row)
                for f in range(F):
                    g = dy[f * C : (f + 1) * C]
                    _add(db, g)
                    for i in range(max(0, KT // 2 - t), min(KT, KT // 2 + lens[n] - t)):
                        for j in range(max(0, KF // 2 - f), min(KF, KF // 2 + F - f)):
                            at = (t + i - KT // 2) * row + (f + j - KF // 2) * C
                            _multiply_add(dw[(i * KF + j) * C : (i * KF + j + 1) * C], g, x[at : at + C])
        begin, end = next_piece(data)

"""Kernels of attention weights: one pass over the scores in each direction."""

from typing import NamedTuple

import numpy as np
from numba import njit

from asr_core.ops.cpu.arrays import Address, f32_array, u8_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece
from asr_core.ops.cpu.vector import exp

f32 = np.float32


MASKED_SCORE = f32(-1000.0)  # finite, so that a row without any visible key stays finite


@njit(inline="always")
def _largest(x: np.ndarray) -> np.float32:
    """Return the maximum of x (S,), by four chains, as each is a chain of dependent steps."""
    m0, m1, m2, m3 = x[0], x[0], x[0], x[0]
    for j in range(x.size // 4):
        m0 = x[4 * j] if x[4 * j] > m0 else m0
        m1 = x[4 * j + 1] if x[4 * j + 1] > m1 else m1
        m2 = x[4 * j + 2] if x[4 * j + 2] > m2 else m2
        m3 = x[4 * j + 3] if x[4 * j + 3] > m3 else m3
    for s in range(x.size // 4 * 4, x.size):
        m0 = x[s] if x[s] > m0 else m0
    return max(max(m0, m1), max(m2, m3))


class Softmax(NamedTuple):
    """Softmax over keys of scores plus position scores, and its gradients.

    scores (H, N, T, S), p (H, N, T, P), pos (H, P, L), mask (NM, TM, S) bytes or 0, with NM 1 or N
    and TM 1 or T; weights (H, N, T, S), the result. For the backward pass alone: the weights'
    gradient grad (H, N, T, S), a further one of the first head's, first (N, T, S) or 0; and the
    gradients dscores (H, N, T, S), dp (H, N, T, P) and dpos (H, N, P, L), zeroed.
    """

    scores: Address
    p: Address
    pos: Address
    mask: Address
    weights: Address
    grad: Address
    first: Address
    dscores: Address
    dp: Address
    dpos: Address
    N: int
    T: int
    S: int
    P: int
    L: int
    NM: int
    TM: int


@kernel(Softmax)
def positions_and_softmax(data: Pointer) -> None:
    """Compute weights = softmax(scores + p . pos, shifted).

    A kernel row is a query, (h * N + n) * T + t.
    """
    a = fields(Softmax, data)
    N, T, S, P, L, NM, TM = a.N, a.T, a.S, a.P, a.L, a.NM, a.TM
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            t, n, h = r % T, (r // T) % N, r // (T * N)
            x, y = f32_array(a.scores + 4 * r * S, S), f32_array(a.weights + 4 * r * S, S)  # (S,)
            p = f32_array(a.p + 4 * r * P, P)
            for s in range(S):
                y[s] = x[s]
            for d in range(P):
                pos, factor = f32_array(a.pos + 4 * ((h * P + d) * L + T - 1 - t), S), p[d]
                for s in range(S):
                    y[s] += factor * pos[s]
            if a.mask != 0:
                mask = u8_array(a.mask + (min(n, NM - 1) * TM + min(t, TM - 1)) * S, S)
                for s in range(S):
                    y[s] = MASKED_SCORE if mask[s] else y[s]
            top = _largest(y)
            total = f32(0.0)
            for s in range(S):
                v = y[s] - top
                e = f32(0.0) if v < f32(-80.0) else exp(v)  # e^-80 is lost in any sum that holds a 1
                y[s] = e
                total += e
            inv = f32(1.0) / total
            for s in range(S):
                y[s] *= inv
        begin, end = next_piece(data)


@kernel(Softmax)
def positions_and_softmax_backward(data: Pointer) -> None:
    """Compute the gradients of the scores, of p and of pos; a kernel row is a pair h * N + n."""
    a = fields(Softmax, data)
    N, T, S, P, L, NM, TM = a.N, a.T, a.S, a.P, a.L, a.NM, a.TM
    begin, end = next_piece(data)
    while begin < end:
        for i in range(begin, end):
            n, h = i % N, i // N
            for t in range(T):
                r = i * T + t
                w, g = f32_array(a.weights + 4 * r * S, S), f32_array(a.grad + 4 * r * S, S)  # (S,)
                ds = f32_array(a.dscores + 4 * r * S, S)
                dot = f32(0.0)
                if h == 0 and a.first != 0:
                    g0 = f32_array(a.first + 4 * r * S, S)
                    for s in range(S):
                        dot += w[s] * (g[s] + g0[s])
                    for s in range(S):
                        ds[s] = w[s] * (g[s] + g0[s] - dot)
                else:
                    for s in range(S):
                        dot += w[s] * g[s]
                    for s in range(S):
                        ds[s] = w[s] * (g[s] - dot)
                if a.mask != 0:
                    mask = u8_array(a.mask + (min(n, NM - 1) * TM + min(t, TM - 1)) * S, S)
                    for s in range(S):
                        ds[s] = f32(0.0) if mask[s] else ds[s]
                p, dp = f32_array(a.p + 4 * r * P, P), f32_array(a.dp + 4 * r * P, P)
                for d in range(P):
                    pos = f32_array(a.pos + 4 * ((h * P + d) * L + T - 1 - t), S)
                    dpos = f32_array(a.dpos + 4 * ((i * P + d) * L + T - 1 - t), S)
                    factor, total = p[d], f32(0.0)
                    for s in range(S):
                        total += ds[s] * pos[s]
                        dpos[s] += ds[s] * factor
                    dp[d] = total
        begin, end = next_piece(data)

"""Kernels of attention weights: what comes between the two matrix products, one pass over the scores in each direction."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece, u8_array
from asr_core.ops.cpu.vector import exp

f32 = np.float32


@kernel(n_args=12)
def positions_and_softmax(data):  # noqa: ANN001, ANN201
    """Softmax over keys of scores plus position scores; rows are (h * N + n) * T + t.

    args: scores (H, N, T, S), p (H, N, T, P), pos (H, P, L), mask (NM, TM, S) bytes or 0, out (H, N, T, S), N, T, S, P, L, NM, TM.
    """
    args, floats = arguments(data, 12, 1)
    N, T, S, P, L, NM, TM = args[5], args[6], args[7], args[8], args[9], args[10], args[11]
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            t, n, h = r % T, (r // T) % N, r // (T * N)
            x, y = f32_array(args[0] + 4 * r * S, S), f32_array(args[4] + 4 * r * S, S)
            p = f32_array(args[1] + 4 * r * P, P)
            for s in range(S):
                y[s] = x[s]
            for d in range(P):
                pos, factor = f32_array(args[2] + 4 * ((h * P + d) * L + T - 1 - t), S), p[d]
                for s in range(S):
                    y[s] += factor * pos[s]
            if args[3] != 0:
                mask = u8_array(args[3] + (min(n, NM - 1) * TM + min(t, TM - 1)) * S, S)
                for s in range(S):
                    y[s] = f32(-1000.0) if mask[s] else y[s]
            m0, m1, m2, m3 = (
                y[0],
                y[0],
                y[0],
                y[0],
            )  # four at a time: a single maximum is a chain of dependent steps
            for j in range(S // 4):
                m0 = y[4 * j] if y[4 * j] > m0 else m0
                m1 = y[4 * j + 1] if y[4 * j + 1] > m1 else m1
                m2 = y[4 * j + 2] if y[4 * j + 2] > m2 else m2
                m3 = y[4 * j + 3] if y[4 * j + 3] > m3 else m3
            for s in range(S // 4 * 4, S):
                m0 = y[s] if y[s] > m0 else m0
            top = max(max(m0, m1), max(m2, m3))
            total = f32(0.0)
            for s in range(S):
                v = y[s] - top
                e = f32(0.0) if v < f32(-80.0) else exp(v)  # exact zeros tell later what was masked
                y[s] = e
                total += e
            inv = f32(1.0) / total
            for s in range(S):
                y[s] *= inv
        begin, end = next_piece(data)


@kernel(n_args=16)
def positions_and_softmax_backward(data):  # noqa: ANN001, ANN201
    """Gradient of the scores and of the positions; rows are pairs h * N + n.

    args: weights, their gradient, first (N, T, S): a further gradient of the first head's or 0, p (H, N, T, P), pos (H, P, L),
    mask (NM, TM, S) bytes or 0, dscores (H, N, T, S), dp (H, N, T, P), dpos (H, N, P, L) zeroed, N, T, S, P, L, NM, TM.
    """
    args, floats = arguments(data, 16, 1)
    N, T, S, P, L, NM, TM = args[9], args[10], args[11], args[12], args[13], args[14], args[15]
    begin, end = next_piece(data)
    while begin < end:
        for i in range(begin, end):
            n, h = i % N, i // N
            for t in range(T):
                r = i * T + t
                w, g, ds = (
                    f32_array(args[0] + 4 * r * S, S),
                    f32_array(args[1] + 4 * r * S, S),
                    f32_array(args[6] + 4 * r * S, S),
                )
                dot = f32(0.0)
                if h == 0 and args[2] != 0:
                    g0 = f32_array(args[2] + 4 * r * S, S)
                    for s in range(S):
                        dot += w[s] * (g[s] + g0[s])
                    for s in range(S):
                        ds[s] = w[s] * (g[s] + g0[s] - dot)
                else:
                    for s in range(S):
                        dot += w[s] * g[s]
                    for s in range(S):
                        ds[s] = w[s] * (g[s] - dot)
                if args[5] != 0:
                    mask = u8_array(args[5] + (min(n, NM - 1) * TM + min(t, TM - 1)) * S, S)
                    for s in range(S):
                        ds[s] = f32(0.0) if mask[s] else ds[s]
                p, dp = f32_array(args[3] + 4 * r * P, P), f32_array(args[7] + 4 * r * P, P)
                for d in range(P):
                    pos = f32_array(args[4] + 4 * ((h * P + d) * L + T - 1 - t), S)
                    dpos = f32_array(args[8] + 4 * ((i * P + d) * L + T - 1 - t), S)
                    factor, total = p[d], f32(0.0)
                    for s in range(S):
                        total += ds[s] * pos[s]
                        dpos[s] += ds[s] * factor
                    dp[d] = total
        begin, end = next_piece(data)

"""Depthwise convolutions with the channels innermost, so that every tap is a vector operation and nothing is transposed.

1-D: x (T, N, C) along T; weights (K, C). With ``chunk`` > 0 a tap never leaves its chunk of that many frames.
2-D: x (N, T, F, C) along T and F; weights (KT, KF, C), both odd, zero padding that keeps the size.
"""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece

f32 = np.float32


@kernel(n_args=11)
def conv1d(data):  # noqa: ANN001, ANN201
    """args: x (T, N, C), w (K, C), bias (C,), y (T, N, C), T, N, C, K, pad, chunk, flip; rows are frames t.

    y[t] = bias + sum_k w[k] x[t + k - pad]; with flip the taps run backwards, y[t] = sum_k w[k] x[t - k + pad],
    which is the gradient with respect to the input (bias 0: its address).
    """
    args, floats = arguments(data, 11, 1)
    T, N, C, K, pad, chunk, flip = args[4], args[5], args[6], args[7], args[8], args[9], args[10]
    row = N * C
    x, w, y = f32_array(args[0], T * row), f32_array(args[1], K * C), f32_array(args[3], T * row)
    bias = f32_array(args[2], C)
    begin, end = next_piece(data)
    while begin < end:
        for t in range(begin, end):
            low = (t // chunk) * chunk if chunk > 0 else 0
            high = min(T, low + chunk) if chunk > 0 else T
            for n in range(N):
                out = y[t * row + n * C : t * row + (n + 1) * C]
                for c in range(C):
                    out[c] = bias[c] if args[2] != 0 else f32(0.0)
                for k in range(K):
                    s = t - k + pad if flip else t + k - pad
                    if s >= low and s < high:
                        v, u = w[k * C : (k + 1) * C], x[s * row + n * C : s * row + (n + 1) * C]
                        for c in range(C):
                            out[c] += v[c] * u[c]
        begin, end = next_piece(data)


@kernel(n_args=11)
def conv1d_weight_grad(data):  # noqa: ANN001, ANN201
    """args: x (T, N, C), dy (T, N, C), dw (P, K, C), db (P, C), T, N, C, K, pad, chunk, P; rows are 0...P, a part of the frames each.

    dw[p, k] = sum over the p-th part's t and all n of dy[t] x[t + k - pad]; db[p] likewise of dy[t]. Both start at zero.
    """
    args, floats = arguments(data, 11, 1)
    T, N, C, K, pad, chunk, P = args[4], args[5], args[6], args[7], args[8], args[9], args[10]
    row = N * C
    x, dy = f32_array(args[0], T * row), f32_array(args[1], T * row)
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            dw, db = f32_array(args[2] + 4 * p * K * C, K * C), f32_array(args[3] + 4 * p * C, C)
            for t in range(p * T // P, (p + 1) * T // P):
                low = (t // chunk) * chunk if chunk > 0 else 0
                high = min(T, low + chunk) if chunk > 0 else T
                for n in range(N):
                    g = dy[t * row + n * C : t * row + (n + 1) * C]
                    for c in range(C):
                        db[c] += g[c]
                    for k in range(K):
                        s = t + k - pad
                        if s >= low and s < high:
                            v, u = dw[k * C : (k + 1) * C], x[s * row + n * C : s * row + (n + 1) * C]
                            for c in range(C):
                                v[c] += g[c] * u[c]
        begin, end = next_piece(data)


@kernel(n_args=10)
def conv2d(data):  # noqa: ANN001, ANN201
    """args: x (N, T, F, C), w (KT, KF, C), bias (C,) or 0, y (N, T, F, C), T, F, C, KT, KF, flip; rows are frames n * T + t.

    y[t, f] = bias + sum w[i, j] x[t + i - KT // 2, f + j - KF // 2]; flip reverses both taps (the gradient of the input).
    """
    args, floats = arguments(data, 10, 1)
    T, F, C, KT, KF, flip = args[4], args[5], args[6], args[7], args[8], args[9]
    row = F * C
    w = f32_array(args[1], KT * KF * C)
    bias = f32_array(args[2], C)
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            n, t = r // T, r % T
            x = f32_array(args[0] + 4 * n * T * row, T * row)
            y = f32_array(args[3] + 4 * r * row, row)
            for f in range(F):
                out = y[f * C : (f + 1) * C]
                for c in range(C):
                    out[c] = bias[c] if args[2] != 0 else f32(0.0)
                for i in range(KT):
                    s = t + i - KT // 2
                    if s < 0 or s >= T:
                        continue
                    for j in range(KF):
                        q = f + j - KF // 2
                        if q < 0 or q >= F:
                            continue
                        tap = (KT - 1 - i) * KF + KF - 1 - j if flip else i * KF + j
                        v, u = w[tap * C : (tap + 1) * C], x[s * row + q * C : s * row + (q + 1) * C]
                        for c in range(C):
                            out[c] += v[c] * u[c]
        begin, end = next_piece(data)


@kernel(n_args=11)
def conv2d_weight_grad(data):  # noqa: ANN001, ANN201
    """args: x, dy (N, T, F, C), dw (P, KT, KF, C), db (P, C), N, T, F, C, KT, KF, P; rows are 0...P, a part of the frames each."""
    args, floats = arguments(data, 11, 1)
    N, T, F, C, KT, KF, P = args[4], args[5], args[6], args[7], args[8], args[9], args[10]
    row, frames = F * C, N * T
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            dw, db = f32_array(args[2] + 4 * p * KT * KF * C, KT * KF * C), f32_array(args[3] + 4 * p * C, C)
            for r in range(p * frames // P, (p + 1) * frames // P):
                n, t = r // T, r % T
                x = f32_array(args[0] + 4 * n * T * row, T * row)
                dy = f32_array(args[1] + 4 * r * row, row)
                for f in range(F):
                    g = dy[f * C : (f + 1) * C]
                    for c in range(C):
                        db[c] += g[c]
                    for i in range(KT):
                        s = t + i - KT // 2
                        if s < 0 or s >= T:
                            continue
                        for j in range(KF):
                            q = f + j - KF // 2
                            if q < 0 or q >= F:
                                continue
                            v = dw[(i * KF + j) * C : (i * KF + j + 1) * C]
                            u = x[s * row + q * C : s * row + (q + 1) * C]
                            for c in range(C):
                                v[c] += g[c] * u[c]
        begin, end = next_piece(data)

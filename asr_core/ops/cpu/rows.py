"""Kernels over rows of C channels: statistics of channels, the balancer's gradient, BiasNorm."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece

f32 = np.float32
PART = 64  # rows whose contributions to a gradient are summed into one partial sum


@kernel(n_args=5)
def channel_sums(data):  # noqa: ANN001, ANN201
    """args: x (R, C), sums (P, 2, C) zeroed, R, C, P; rows are 0...P, a part of the R each. Sums of x and of x^2."""
    args, floats = arguments(data, 5, 1)
    R, C, P = args[2], args[3], args[4]
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            total, square = f32_array(args[1] + 8 * p * C, C), f32_array(args[1] + 8 * p * C + 4 * C, C)
            for r in range(p * R // P, (p + 1) * R // P):
                x = f32_array(args[0] + 4 * r * C, C)
                for c in range(C):
                    total[c] += x[c]
                    square[c] += x[c] * x[c]
        begin, end = next_piece(data)


@kernel(n_args=6)
def balance(data):  # noqa: ANN001, ANN201
    """args: x (R, C), g (R, C), out (R, C), a (C,), b (C,), C. out = g + |g| (a + b x)."""
    args, floats = arguments(data, 6, 1)
    C = args[5]
    a, b = f32_array(args[3], C), f32_array(args[4], C)
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            x, g, out = (
                f32_array(args[0] + 4 * r * C, C),
                f32_array(args[1] + 4 * r * C, C),
                f32_array(args[2] + 4 * r * C, C),
            )
            for c in range(C):
                out[c] = g[c] + abs(g[c]) * (a[c] + b[c] * x[c])
        begin, end = next_piece(data)


@kernel(n_args=5, n_floats=1)
def bias_norm_forward(data):  # noqa: ANN001, ANN201
    """args: x (R, C), bias (C,), y (R, C), inv_rms (R,), C; floats: scale. inv_rms = rms(x - bias)^-1; y = x inv_rms scale."""
    args, floats = arguments(data, 5, 1)
    C, scale = args[4], f32(floats[0])
    bias = f32_array(args[1], C)
    begin, end = next_piece(data)
    while begin < end:
        inv_rms = f32_array(args[3], end)
        for r in range(begin, end):
            x, y = f32_array(args[0] + 4 * r * C, C), f32_array(args[2] + 4 * r * C, C)
            square = f32(0.0)
            for c in range(C):
                square += (x[c] - bias[c]) * (x[c] - bias[c])
            inv_rms[r] = f32(1.0) / np.sqrt(square / f32(C))
            factor = inv_rms[r] * scale
            for c in range(C):
                y[c] = x[c] * factor
        begin, end = next_piece(data)


@kernel(n_args=9, n_floats=1)
def bias_norm_backward(data):  # noqa: ANN001, ANN201
    """args: x, dy (R, C), bias (C,), inv_rms (R,), dx (R, C), dbias (P, C) and dscale (P,) zeroed, R, C; floats: scale.

    Rows are 0...P, PART of the R each; dscale is the gradient of log(scale).
    """
    args, floats = arguments(data, 9, 1)
    R, C, scale = args[7], args[8], f32(floats[0])
    bias, inv_rms = f32_array(args[2], C), f32_array(args[3], R)
    begin, end = next_piece(data)
    while begin < end:
        parts = (R + PART - 1) // PART
        dscale = f32_array(args[6], parts)
        for p in range(begin, end):
            dbias = f32_array(args[5] + 4 * p * C, C)
            for r in range(p * PART, min(R, (p + 1) * PART)):
                x, dy, dx = (
                    f32_array(args[0] + 4 * r * C, C),
                    f32_array(args[1] + 4 * r * C, C),
                    f32_array(args[4] + 4 * r * C, C),
                )
                factor = inv_rms[r] * scale
                along = f32(0.0)
                for c in range(C):
                    along += dy[c] * x[c]
                along *= factor
                dscale[p] += along
                pull = along * inv_rms[r] * inv_rms[r] / f32(C)
                for c in range(C):
                    back = (x[c] - bias[c]) * pull
                    dbias[c] += back
                    dx[c] = dy[c] * factor - back
        begin, end = next_piece(data)

"""ScaledAdam's two passes over all parameters of a model."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, f64_array, i64_array, kernel, next_piece

f32 = np.float32


@kernel(n_args=4)
def gradient_sums(data):  # noqa: ANN001, ANN201
    """args: addresses of parameters and of gradients (S,) int64, sizes (S,) int64, sums (S, 3) float64; rows are 0...S.

    S pieces of parameters p with gradients g; sums of g^2, p g and p^2.
    """
    args, floats = arguments(data, 4, 1)
    begin, end = next_piece(data)
    while begin < end:
        p_at, g_at, sizes = i64_array(args[0], end), i64_array(args[1], end), i64_array(args[2], end)
        for s in range(begin, end):
            p, g = f32_array(p_at[s], sizes[s]), f32_array(g_at[s], sizes[s])
            sums = f64_array(args[3] + 24 * s, 3)
            gg, pg, pp = f32(0.0), f32(0.0), f32(0.0)
            for i in range(sizes[s]):
                gg += g[i] * g[i]
                pg += p[i] * g[i]
                pp += p[i] * p[i]
            sums[0], sums[1], sums[2] = gg, pg, pp
        begin, end = next_piece(data)


@kernel(n_args=6, n_floats=5)
def adam_step(data):  # noqa: ANN001, ANN201
    """args: addresses (S,) int64 of parameters, gradients, squared averages, momenta; sizes (S,) int64; rates (S, 2) float64.

    floats: beta1, beta2, weight of g^2, factor on the root of the squared average, eps; rows are 0...S.
    v = beta2 v + weight g^2; m = beta1 m + rate0 g / (factor sqrt(v) + eps) + rate1 p; p += m.
    """
    args, floats = arguments(data, 6, 5)
    beta1, beta2, weight, factor, eps = (
        f32(floats[0]),
        f32(floats[1]),
        f32(floats[2]),
        f32(floats[3]),
        f32(floats[4]),
    )
    begin, end = next_piece(data)
    while begin < end:
        p_at, g_at, v_at, m_at = (
            i64_array(args[0], end),
            i64_array(args[1], end),
            i64_array(args[2], end),
            i64_array(args[3], end),
        )
        sizes = i64_array(args[4], end)
        for s in range(begin, end):
            p, g, v, m = (
                f32_array(p_at[s], sizes[s]),
                f32_array(g_at[s], sizes[s]),
                f32_array(v_at[s], sizes[s]),
                f32_array(m_at[s], sizes[s]),
            )
            rates = f64_array(args[5] + 16 * s, 2)
            rate, growth = f32(rates[0]), f32(rates[1])
            for i in range(sizes[s]):
                v[i] = beta2 * v[i] + weight * g[i] * g[i]
                m[i] = beta1 * m[i] + rate * g[i] / (factor * np.sqrt(v[i]) + eps) + growth * p[i]
                p[i] += m[i]
        begin, end = next_piece(data)

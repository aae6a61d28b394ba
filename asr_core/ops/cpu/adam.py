"""The two passes of ScaledAdam over all parameters of a model, which lie scattered in memory as S
pieces.
"""

from typing import NamedTuple

import numpy as np

from asr_core.ops.cpu.arrays import Address, f32_array, f64_array, i64_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece

f32 = np.float32


class GradientSums(NamedTuple):
    """Sums over pieces of parameters p with gradients g.

    Addresses of the pieces p_at (S,) int64 and g_at (S,) int64, their numbers of elements sizes
    (S,) int64; sums (S, 3) float64, of g^2, p g and p^2.
    """

    p_at: Address
    g_at: Address
    sizes: Address
    sums: Address


@kernel(GradientSums)
def gradient_sums(data: Pointer) -> None:
    """Add up g^2, p g and p^2; a kernel row is one of the S pieces."""
    a = fields(GradientSums, data)
    begin, end = next_piece(data)
    while begin < end:
        p_at, g_at, sizes = i64_array(a.p_at, end), i64_array(a.g_at, end), i64_array(a.sizes, end)
        for s in range(begin, end):
            p, g = f32_array(p_at[s], sizes[s]), f32_array(g_at[s], sizes[s])
            sums = f64_array(a.sums + 24 * s, 3)
            gg, pg, pp = f32(0.0), f32(0.0), f32(0.0)
            for i in range(sizes[s]):
                gg += g[i] * g[i]
                pg += p[i] * g[i]
                pp += p[i] * p[i]
            sums[0], sums[1], sums[2] = gg, pg, pp
        begin, end = next_piece(data)


class AdamStep(NamedTuple):
    """A step of pieces of parameters p with gradients g, averages v of the squared gradient and
    momenta m.

    Addresses of the pieces p_at, g_at, v_at, m_at (S,) int64, their numbers of elements sizes (S,)
    int64, and rates (S, 2) float64: the rate of each piece and its growth.

    Attributes:
      weight: weight of the squared gradient in the average.
      factor: on the root of the average, which corrects its bias.
    """

    p_at: Address
    g_at: Address
    v_at: Address
    m_at: Address
    sizes: Address
    rates: Address
    beta1: float
    beta2: float
    weight: float
    factor: float
    eps: float


@kernel(AdamStep)
def adam_step(data: Pointer) -> None:
    """Update averages, momenta and parameters; a kernel row is one of the S pieces.

    v = beta2 v + weight g^2; m = beta1 m + rate g / (factor sqrt(v) + eps) + growth p; p += m.
    """
    a = fields(AdamStep, data)
    beta1, beta2, weight = f32(a.beta1), f32(a.beta2), f32(a.weight)
    factor, eps = f32(a.factor), f32(a.eps)
    begin, end = next_piece(data)
    while begin < end:
        p_at, g_at, sizes = i64_array(a.p_at, end), i64_array(a.g_at, end), i64_array(a.sizes, end)
        v_at, m_at = i64_array(a.v_at, end), i64_array(a.m_at, end)
        for s in range(begin, end):
            p, g = f32_array(p_at[s], sizes[s]), f32_array(g_at[s], sizes[s])
            v, m = f32_array(v_at[s], sizes[s]), f32_array(m_at[s], sizes[s])
            rates = f64_array(a.rates + 16 * s, 2)
            rate, growth = f32(rates[0]), f32(rates[1])
            for i in range(sizes[s]):
                v[i] = beta2 * v[i] + weight * g[i] * g[i]
                m[i] = beta1 * m[i] + rate * g[i] / (factor * np.sqrt(v[i]) + eps) + growth * p[i]
                p[i] += m[i]
        begin, end = next_piece(data)

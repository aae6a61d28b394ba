"""Elementary functions of float32 that LLVM vectorises (calls to libm are not vectorised)."""

import numpy as np
from numba import njit

from asr_core.ops.cpu.intrinsics import bits_float

f32 = np.float32


@njit(inline="always")
def exp(x: np.float32) -> np.float32:
    """Return e^x to 2 ulp for x in [-87, 88].

    Clamped outside, so below -87 it gives about 1e-38. NaN stays NaN.
    """
    x = f32(-87.0) if x < f32(-87.0) else x
    x = f32(88.0) if x > f32(88.0) else x
    k = np.floor(x * f32(1.44269504) + f32(0.5))
    # ln 2 in two parts: the first has few bits, so k times it is exact
    r = x - k * f32(0.693359375)
    r = r - k * f32(-2.12194440e-4)
    # Taylor-like minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2)/2
    p = f32(1.98756915e-4)
    p = p * r + f32(1.39819995e-3)
    p = p * r + f32(8.33345191e-3)
    p = p * r + f32(4.16657959e-2)
    p = p * r + f32(1.66666655e-1)
    p = p * r + f32(0.5)
    p = p * r * r + r + f32(1.0)
    # 2^k by its bits: exponent k + 127, mantissa 0
    return p * bits_float((np.int32(k) + np.int32(127)) << np.int32(23))


@njit(inline="always")
def log1p_unit(u: np.float32) -> np.float32:
    """Return log(1 + u) for u in [0, 1], from the series of 2 artanh(u / (2 + u)).

    Error below 1e-7.

    The argument of artanh is at most 1/3, where the terms beyond the 15th power are below float32's
    resolution.
    """
    z = u / (f32(2.0) + u)
    s = z * z
    p = f32(2.0 / 15.0)
    p = p * s + f32(2.0 / 13.0)
    p = p * s + f32(2.0 / 11.0)
    p = p * s + f32(2.0 / 9.0)
    p = p * s + f32(2.0 / 7.0)
    p = p * s + f32(2.0 / 5.0)
    p = p * s + f32(2.0 / 3.0)
    p = p * s + f32(2.0)
    return p * z


@njit(inline="always")
def sigmoid(x: np.float32) -> np.float32:
    """Return 1 / (1 + e^-x) without overflow."""
    u = exp(-abs(x))
    return (f32(1.0) if x >= f32(0.0) else u) / (f32(1.0) + u)


@njit(inline="always")
def softplus(x: np.float32) -> np.float32:
    """Return log(1 + e^x) without overflow."""
    # (x + |x|) / 2 instead of max(x, 0): the latter's NaN rule would keep the loop from being
    # vectorised
    return (x + abs(x)) * f32(0.5) + log1p_unit(exp(-abs(x)))

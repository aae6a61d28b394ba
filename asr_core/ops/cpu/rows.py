"""Kernels over rows of C channels: statistics of channels, the balancer's gradient, BiasNorm."""

from typing import NamedTuple

import numpy as np

from asr_core.ops.cpu.arrays import Address, f32_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece

f32 = np.float32
PART = 64  # rows whose contributions to a gradient make one partial sum, so that threads share no sum


class ChannelSums(NamedTuple):
    """Sums of x and of x^2 over P parts of the rows: x (R, C), sums (P, 2, C) zeroed."""

    x: Address
    sums: Address
    R: int
    C: int
    P: int


@kernel(ChannelSums)
def channel_sums(data: Pointer) -> None:
    """Add up x and x^2 of each channel; a kernel row is one of the P parts."""
    a = fields(ChannelSums, data)
    R, C, P = a.R, a.C, a.P
    begin, end = next_piece(data)
    while begin < end:
        for p in range(begin, end):
            total, square = f32_array(a.sums + 8 * p * C, C), f32_array(a.sums + 8 * p * C + 4 * C, C)
            for r in range(p * R // P, (p + 1) * R // P):
                x = f32_array(a.x + 4 * r * C, C)
                for c in range(C):
                    total[c] += x[c]
                    square[c] += x[c] * x[c]
        begin, end = next_piece(data)


class Balance(NamedTuple):
    """The balancer's gradient: x (R, C), dy (R, C), dx (R, C), coefficients a (C,) and b (C,)."""

    x: Address
    dy: Address
    dx: Address
    a: Address
    b: Address
    C: int


@kernel(Balance)
def balance(data: Pointer) -> None:
    """Compute dx = dy + |dy| (a + b x); a kernel row is one of the R rows."""
    k = fields(Balance, data)
    C = k.C
    a, b = f32_array(k.a, C), f32_array(k.b, C)
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            x, dy = f32_array(k.x + 4 * r * C, C), f32_array(k.dy + 4 * r * C, C)
            dx = f32_array(k.dx + 4 * r * C, C)
            for c in range(C):
                dx[c] = dy[c] + abs(dy[c]) * (a[c] + b[c] * x[c])
        begin, end = next_piece(data)


class BiasNormForward(NamedTuple):
    """BiasNorm: x (R, C), bias (C,), y (R, C), inv_rms (R,)."""

    x: Address
    bias: Address
    y: Address
    inv_rms: Address
    C: int
    scale: float


@kernel(BiasNormForward)
def bias_norm_forward(data: Pointer) -> None:
    """Compute inv_rms = 1 / rms(x - bias) and y = x inv_rms scale.

    A kernel row is one of the R rows.
    """
    a = fields(BiasNormForward, data)
    C, scale = a.C, f32(a.scale)
    bias = f32_array(a.bias, C)
    begin, end = next_piece(data)
    while begin < end:
        inv_rms = f32_array(a.inv_rms, end)
        for r in range(begin, end):
            x, y = f32_array(a.x + 4 * r * C, C), f32_array(a.y + 4 * r * C, C)
            square = f32(0.0)
            for c in range(C):
                square += (x[c] - bias[c]) * (x[c] - bias[c])
            inv_rms[r] = f32(1.0) / np.sqrt(square / f32(C))
            factor = inv_rms[r] * scale
            for c in range(C):
                y[c] = x[c] * factor
        begin, end = next_piece(data)


class BiasNormBackward(NamedTuple):
    """Gradient of BiasNorm, by P = ceil(R / PART) parts of the rows.

    x (R, C), dy (R, C), bias (C,), inv_rms (R,), dx (R, C); dbias (P, C) and dscale (P,), the
    gradient of log(scale), zeroed.
    """

    x: Address
    dy: Address
    bias: Address
    inv_rms: Address
    dx: Address
    dbias: Address
    dscale: Address
    R: int
    C: int
    scale: float


@kernel(BiasNormBackward)
def bias_norm_backward(data: Pointer) -> None:
    """Compute dx, dbias and dscale from dy; a kernel row is one of the P parts."""
    a = fields(BiasNormBackward, data)
    R, C, scale = a.R, a.C, f32(a.scale)
    bias, inv_rms = f32_array(a.bias, C), f32_array(a.inv_rms, R)
    begin, end = next_piece(data)
    while begin < end:
        parts = (R + PART - 1) // PART
        dscale = f32_array(a.dscale, parts)
        for p in range(begin, end):
            dbias = f32_array(a.dbias + 4 * p * C, C)
            for r in range(p * PART, min(R, (p + 1) * PART)):
                x, dy = f32_array(a.x + 4 * r * C, C), f32_array(a.dy + 4 * r * C, C)
                dx = f32_array(a.dx + 4 * r * C, C)
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

"""Swoosh and DoubleSwish, and their gradients, as one pass over memory each.

No output may share memory with an input: LLVM then falls back to one element at a time.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from asr_core.ops.cpu.arrays import Address, f32_array
from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece
from asr_core.ops.cpu.vector import sigmoid, softplus

f32 = np.float32
GRAIN = 8192  # elements worth a thread: some microseconds of work, against about one to start it


@njit(inline="always")
def swoosh(x: np.float32, offset: np.float32, constant: np.float32) -> np.float32:
    """Return log(1 + exp(x - offset)) - 0.08 x - constant."""
    return softplus(x - offset) - f32(0.08) * x - constant


@njit(inline="always")
def swoosh_slope(x: np.float32, offset: np.float32) -> np.float32:
    """Return the derivative of :func:`swoosh`, sigmoid(x - offset) - 0.08."""
    return sigmoid(x - offset) - f32(0.08)


@njit(inline="always")
def double_swish_slope(x: np.float32) -> np.float32:
    """Return the derivative of x s with s = sigmoid(x - 1), which is s + x s (1 - s)."""
    s = sigmoid(x - f32(1.0))
    return s + x * s * (f32(1.0) - s)


class Forward(NamedTuple):
    """Value of an activation of M elements: x (M,) and y (M,)."""

    x: Address
    y: Address


class Backward(NamedTuple):
    """Gradient of an activation of M elements: x (M,), dy (M,) and dx (M,)."""

    x: Address
    dy: Address
    dx: Address


class SwooshForward(NamedTuple):
    """Value of Swoosh: x (R, M), mask (M,) or 0 for none, y (R, M)."""

    x: Address
    mask: Address
    y: Address
    M: int
    offset: float
    constant: float


class SwooshBackward(NamedTuple):
    """Gradient of Swoosh: x (M,), dy (M,) and dx (M,)."""

    x: Address
    dy: Address
    dx: Address
    offset: float


class SwooshBoth(NamedTuple):
    """Value and gradient of Swoosh: x (R, M), dy (R, M), mask (M,) or 0 for none, y (R, M), dx (R,
    M).
    """

    x: Address
    dy: Address
    mask: Address
    y: Address
    dx: Address
    M: int
    offset: float
    constant: float


@kernel(SwooshForward)
def swoosh_forward(data: Pointer) -> None:
    """Compute y = swoosh(x) mask.

    A kernel row is a row of x (R, M), the same mask (M,) holds for every one.
    """
    a = fields(SwooshForward, data)
    offset, constant, M = f32(a.offset), f32(a.constant), a.M
    begin, end = next_piece(data)
    while begin < end:
        if a.mask == 0:
            n = (end - begin) * M
            x, y = f32_array(a.x + 4 * begin * M, n), f32_array(a.y + 4 * begin * M, n)
            for i in range(n):
                y[i] = swoosh(x[i], offset, constant)
        else:
            mask = f32_array(a.mask, M)
            for r in range(begin, end):
                x, y = f32_array(a.x + 4 * r * M, M), f32_array(a.y + 4 * r * M, M)
                for i in range(M):
                    y[i] = swoosh(x[i], offset, constant) * mask[i]
        begin, end = next_piece(data)


@kernel(SwooshBackward)
def swoosh_backward(data: Pointer) -> None:
    """Compute dx = dy swoosh_slope(x); a kernel row is an element."""
    a = fields(SwooshBackward, data)
    offset = f32(a.offset)
    begin, end = next_piece(data)
    while begin < end:
        x, dy = f32_array(a.x + 4 * begin, end - begin), f32_array(a.dy + 4 * begin, end - begin)
        dx = f32_array(a.dx + 4 * begin, end - begin)
        for i in range(x.size):
            dx[i] = dy[i] * swoosh_slope(x[i], offset)
        begin, end = next_piece(data)


@kernel(SwooshBoth)
def swoosh_both(data: Pointer) -> None:
    """Compute y = swoosh(x) mask and dx = dy mask swoosh_slope(x).

    Rows as in :func:`swoosh_forward`.
    """
    a = fields(SwooshBoth, data)
    offset, constant, M = f32(a.offset), f32(a.constant), a.M
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            x, dy = f32_array(a.x + 4 * r * M, M), f32_array(a.dy + 4 * r * M, M)
            y, dx = f32_array(a.y + 4 * r * M, M), f32_array(a.dx + 4 * r * M, M)
            if a.mask == 0:
                for i in range(M):
                    y[i] = swoosh(x[i], offset, constant)
                    dx[i] = dy[i] * swoosh_slope(x[i], offset)
            else:
                mask = f32_array(a.mask, M)
                for i in range(M):
                    y[i] = swoosh(x[i], offset, constant) * mask[i]
                    dx[i] = dy[i] * mask[i] * swoosh_slope(x[i], offset)
        begin, end = next_piece(data)


@kernel(Forward)
def double_swish_forward(data: Pointer) -> None:
    """Compute y = x sigmoid(x - 1); a kernel row is an element."""
    a = fields(Forward, data)
    begin, end = next_piece(data)
    while begin < end:
        x, y = f32_array(a.x + 4 * begin, end - begin), f32_array(a.y + 4 * begin, end - begin)
        for i in range(x.size):
            y[i] = x[i] * sigmoid(x[i] - f32(1.0))
        begin, end = next_piece(data)


@kernel(Backward)
def double_swish_backward(data: Pointer) -> None:
    """Compute dx = dy double_swish_slope(x); a kernel row is an element."""
    a = fields(Backward, data)
    begin, end = next_piece(data)
    while begin < end:
        x, dy = f32_array(a.x + 4 * begin, end - begin), f32_array(a.dy + 4 * begin, end - begin)
        dx = f32_array(a.dx + 4 * begin, end - begin)
        for i in range(x.size):
            dx[i] = dy[i] * double_swish_slope(x[i])
        begin, end = next_piece(data)

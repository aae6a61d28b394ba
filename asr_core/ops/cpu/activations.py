"""Swoosh activations and their gradients as one pass over memory each."""

import numpy as np
from numba import njit

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece
from asr_core.ops.cpu.vector import sigmoid, softplus

f32 = np.float32
GRAIN = 8192
# No output may share memory with an input: LLVM then falls back to one element at a time.


@njit(inline="always")
def value(x, offset, constant):  # noqa: ANN001, ANN201
    """log(1 + exp(x - offset)) - 0.08 x - constant."""
    return softplus(x - offset) - f32(0.08) * x - constant


@njit(inline="always")
def slope(x, offset):  # noqa: ANN001, ANN201
    """The derivative of :func:`value`: sigmoid(x - offset) - 0.08."""
    return sigmoid(x - offset) - f32(0.08)


@kernel(n_args=2, n_floats=2)
def swoosh_forward(data):  # noqa: ANN001, ANN201
    """args: x, y (any shape); floats: offset, constant. y = value(x)."""
    args, floats = arguments(data, 2, 2)
    offset, constant = f32(floats[0]), f32(floats[1])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, y = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n)
        for i in range(n):
            y[i] = value(x[i], offset, constant)
        begin, end = next_piece(data)


@kernel(n_args=3, n_floats=1)
def swoosh_backward(data):  # noqa: ANN001, ANN201
    """args: x, dy, dx (any shape); floats: offset. dx = dy slope(x)."""
    args, floats = arguments(data, 3, 1)
    offset = f32(floats[0])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, dy, dx = (
            f32_array(args[0] + 4 * begin, n),
            f32_array(args[1] + 4 * begin, n),
            f32_array(args[2] + 4 * begin, n),
        )
        for i in range(n):
            dx[i] = dy[i] * slope(x[i], offset)
        begin, end = next_piece(data)


@kernel(n_args=4, n_floats=2)
def swoosh_masked_forward(data):  # noqa: ANN001, ANN201
    """args: x, mask (M,), y, M; rows of M elements; floats: offset, constant. y = value(x) mask, the mask the same for every row."""
    args, floats = arguments(data, 4, 2)
    offset, constant, M = f32(floats[0]), f32(floats[1]), args[3]
    mask = f32_array(args[1], M)
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            x, y = f32_array(args[0] + 4 * r * M, M), f32_array(args[2] + 4 * r * M, M)
            for i in range(M):
                y[i] = value(x[i], offset, constant) * mask[i]
        begin, end = next_piece(data)


@kernel(n_args=6, n_floats=2)
def swoosh_masked_both(data):  # noqa: ANN001, ANN201
    """args: x, dy, mask (M,), y, dx, M; floats: offset, constant. y as above and dx = dy mask slope(x)."""
    args, floats = arguments(data, 6, 2)
    offset, constant, M = f32(floats[0]), f32(floats[1]), args[5]
    mask = f32_array(args[2], M)
    begin, end = next_piece(data)
    while begin < end:
        for r in range(begin, end):
            x, dy = f32_array(args[0] + 4 * r * M, M), f32_array(args[1] + 4 * r * M, M)
            y, dx = f32_array(args[3] + 4 * r * M, M), f32_array(args[4] + 4 * r * M, M)
            for i in range(M):
                y[i] = value(x[i], offset, constant) * mask[i]
                dx[i] = dy[i] * mask[i] * slope(x[i], offset)
        begin, end = next_piece(data)


@kernel(n_args=4, n_floats=2)
def swoosh_both(data):  # noqa: ANN001, ANN201
    """args: x, dy, y, dx (any shape); floats: offset, constant. Value and gradient in one pass."""
    args, floats = arguments(data, 4, 2)
    offset, constant = f32(floats[0]), f32(floats[1])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, dy = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n)
        y, dx = f32_array(args[2] + 4 * begin, n), f32_array(args[3] + 4 * begin, n)
        for i in range(n):
            y[i] = value(x[i], offset, constant)
            dx[i] = dy[i] * slope(x[i], offset)
        begin, end = next_piece(data)

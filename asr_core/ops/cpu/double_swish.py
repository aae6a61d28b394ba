"""DoubleSwish, ``x sigmoid(x - 1)``, and its gradient as one pass over memory each."""

import numpy as np
from numba import njit

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece
from asr_core.ops.cpu.vector import sigmoid

f32 = np.float32
GRAIN = 8192


@njit(inline="always")
def slope(x):  # noqa: ANN001, ANN201
    """The derivative: s + x s (1 - s) with s = sigmoid(x - 1)."""
    s = sigmoid(x - f32(1.0))
    return s + x * s * (f32(1.0) - s)


@kernel(n_args=2)
def forward(data):  # noqa: ANN001, ANN201
    """args: x, y (any shape). y = x sigmoid(x - 1)."""
    args, _ = arguments(data, 2, 0)
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, y = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n)
        for i in range(n):
            y[i] = x[i] * sigmoid(x[i] - f32(1.0))
        begin, end = next_piece(data)


@kernel(n_args=3)
def backward(data):  # noqa: ANN001, ANN201
    """args: x, dy, dx (any shape). dx = dy slope(x)."""
    args, _ = arguments(data, 3, 0)
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, dy, dx = (
            f32_array(args[0] + 4 * begin, n),
            f32_array(args[1] + 4 * begin, n),
            f32_array(args[2] + 4 * begin, n),
        )
        for i in range(n):
            dx[i] = dy[i] * slope(x[i])
        begin, end = next_piece(data)

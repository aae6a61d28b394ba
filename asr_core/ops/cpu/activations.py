"""Swoosh activations and their gradients as one pass over memory each."""

import numpy as np

from asr_core.ops.cpu.parallel import arguments, f32_array, kernel, next_piece
from asr_core.ops.cpu.vector import sigmoid, softplus

f32 = np.float32
GRAIN = 8192


@kernel(n_args=2, n_floats=2)
def swoosh_forward(data):  # noqa: ANN001, ANN201
    """args: x, y (any shape); floats: offset, constant. y = log(1 + exp(x - offset)) - 0.08 x - constant."""
    args, floats = arguments(data, 2, 2)
    offset, constant = f32(floats[0]), f32(floats[1])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, y = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n)
        for i in range(n):
            y[i] = softplus(x[i] - offset) - f32(0.08) * x[i] - constant
        begin, end = next_piece(data)


@kernel(n_args=3, n_floats=1)
def swoosh_backward(data):  # noqa: ANN001, ANN201
    """args: x, dy, dx (any shape; dx may be dy); floats: offset. dx = dy (sigmoid(x - offset) - 0.08)."""
    args, floats = arguments(data, 3, 1)
    offset = f32(floats[0])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, dy, dx = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n), f32_array(args[2] + 4 * begin, n)
        for i in range(n):
            dx[i] = dy[i] * (sigmoid(x[i] - offset) - f32(0.08))
        begin, end = next_piece(data)


@kernel(n_args=4, n_floats=2)
def swoosh_again_and_backward(data):  # noqa: ANN001, ANN201
    """args: x, dy, y, dx (any shape; dx may be dy); floats: offset, constant. Both kernels above in one pass."""
    args, floats = arguments(data, 4, 2)
    offset, constant = f32(floats[0]), f32(floats[1])
    begin, end = next_piece(data)
    while begin < end:
        n = end - begin
        x, dy = f32_array(args[0] + 4 * begin, n), f32_array(args[1] + 4 * begin, n)
        y, dx = f32_array(args[2] + 4 * begin, n), f32_array(args[3] + 4 * begin, n)
        for i in range(n):
            y[i] = softplus(x[i] - offset) - f32(0.08) * x[i] - constant
            dx[i] = dy[i] * (sigmoid(x[i] - offset) - f32(0.08))
        begin, end = next_piece(data)

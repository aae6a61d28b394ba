"""What the CPU kernels of the RNN-T losses share: elementary functions and row passes for float32 and float64 alike."""

import math

import numpy as np
from numba import int32, njit, types
from numba.extending import overload

from asr_core.ops.cpu import vector
from asr_core.ops.cpu.parallel import FAST
from asr_core.ops.cpu.vector import bits_float, float_bits

f32 = np.float32
compiled = njit(fastmath=FAST, error_model="numpy")
# For sums whose roundings decide something.
compiled_exactly = njit(error_model="numpy")
# Stands for log(0) inside the recursions: finite, so that differences of two of them are no NaN.
NEVER = -1e30
UNREACHED = -1e29


def exp(x):  # noqa: ANN001, ANN201
    """e^x for x <= 0; 0 below the smallest normal number; NaN stays NaN."""
    return math.exp(x)


@overload(exp, jit_options={"fastmath": FAST})
def _exp(x):  # noqa: ANN001, ANN202
    if x == types.float32:
        return lambda x: f32(0.0) if x < f32(-87.0) else vector.exp(x)
    return lambda x: math.exp(x)


def log1p(x):  # noqa: ANN001, ANN201
    """log(1 + x) for x in [0, 1]; NaN stays NaN."""
    return math.log1p(x)


@overload(log1p, jit_options={"fastmath": FAST})
def _log1p(x):  # noqa: ANN001, ANN202
    if x == types.float32:
        return lambda x: vector.log1p_unit(x)
    return lambda x: math.log1p(x)


def row_max(x):  # noqa: ANN001, ANN201
    """Largest element of a vector; NaN where it meets one that orders above infinity, any number where it meets another NaN."""
    return x.max()


@overload(row_max)
def _row_max(x):  # noqa: ANN001, ANN202
    if x.dtype == types.float32:
        return _row_max_by_bits
    return _row_max_by_value


def _row_max_by_bits(x):  # noqa: ANN001, ANN202
    # a maximum of integers is vectorised, one of floats is not (NaN has rules of its own)
    largest = int32(-2147483648)
    for i in range(x.size):
        bits = float_bits(x[i])
        key = int32(bits ^ int32(int32(bits >> int32(31)) & int32(0x7FFFFFFF)))
        largest = key if key > largest else largest
    return bits_float(int32(largest ^ int32(int32(largest >> int32(31)) & int32(0x7FFFFFFF))))


def _row_max_by_value(x):  # noqa: ANN001, ANN202
    largest = x[0]
    for i in range(x.size):
        largest = x[i] if x[i] > largest else largest
    return largest


@compiled
def sum_exp(x, largest):  # noqa: ANN001, ANN201
    """Sum over a vector of e^(x - largest)."""
    total = x.dtype.type(0.0)
    for i in range(x.size):
        total += exp(x[i] - largest)
    return total

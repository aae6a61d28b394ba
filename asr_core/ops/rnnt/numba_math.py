"""Functions that the CPU kernels of the RNN-T losses share: elementary functions and row passes for
float32 and float64 alike.
"""

import math
from typing import Callable, NamedTuple

import numpy as np
from numba import int32, njit, types
from numba.extending import overload

from asr_core.ops.cpu import vector
from asr_core.ops.cpu.arrays import Address, i64_array
from asr_core.ops.cpu.intrinsics import TypeOrValue, bits_float, float_bits
from asr_core.ops.cpu.parallel import FAST

f32 = np.float32
compiled = njit(fastmath=FAST, error_model="numpy")
# For sums whose roundings decide something.
compiled_exactly = njit(error_model="numpy")


class Limits(NamedTuple):
    """The boundary of an utterance's lattice: its first cell (s_first, t_first) and its last
    (s_last, t_last).
    """

    s_first: int
    t_first: int
    s_last: int
    t_last: int


@njit(inline="always")
def limits_of(boundary: Address, b: int) -> Limits:
    """Return the limits of utterance b from the address of the boundary (B, 4)."""
    row = i64_array(boundary + 32 * b, 4)
    return Limits(row[0], row[1], row[2], row[3])


def exp(x: float) -> float:
    """Return e^x for x <= 0; 0 below the smallest normal number; NaN stays NaN."""
    return math.exp(x)


@overload(exp, jit_options={"fastmath": FAST})
def _exp(x: TypeOrValue) -> Callable:
    def single(x: TypeOrValue) -> np.float32:
        return f32(0.0) if x < f32(-87.0) else vector.exp(x)

    def double(x: TypeOrValue) -> float:
        return math.exp(x)

    return single if x == types.float32 else double


def log1p(x: float) -> float:
    """Return log(1 + x) for x in [0, 1]; NaN stays NaN."""
    return math.log1p(x)


@overload(log1p, jit_options={"fastmath": FAST})
def _log1p(x: TypeOrValue) -> Callable:
    def single(x: TypeOrValue) -> np.float32:
        return vector.log1p_unit(x)

    def double(x: TypeOrValue) -> float:
        return math.log1p(x)

    return single if x == types.float32 else double


def row_max(x: np.ndarray) -> float:
    """Return the largest element of x (C,).

    NaN where it meets one that orders above infinity, any number where another NaN.
    """
    return x.max()


@overload(row_max)
def _row_max(x: TypeOrValue) -> Callable:
    return _row_max_by_bits if x.dtype == types.float32 else _row_max_by_value


def _row_max_by_bits(x: TypeOrValue) -> float:
    """Compare x (C,) as integers: a maximum of integers is vectorised, one of floats is not (NaN
    has its own rules).
    """
    largest = int32(-2147483648)
    for i in range(x.size):
        bits = float_bits(x[i])
        key = int32(bits ^ int32(int32(bits >> int32(31)) & int32(0x7FFFFFFF)))
        largest = key if key > largest else largest
    return bits_float(int32(largest ^ int32(int32(largest >> int32(31)) & int32(0x7FFFFFFF))))


def _row_max_by_value(x: TypeOrValue) -> float:
    """Compare x (C,) as numbers."""
    largest = x[0]
    for i in range(x.size):
        largest = x[i] if x[i] > largest else largest
    return largest


@compiled
def sum_exp(x: np.ndarray, largest: float) -> float:
    """Return the sum over x (C,) of e^(x - largest)."""
    total = x.dtype.type(0.0)
    for i in range(x.size):
        total += exp(x[i] - largest)
    return total

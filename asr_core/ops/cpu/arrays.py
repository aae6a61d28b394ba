"""Arrays at addresses, in compiled code."""

from typing import Any, Callable

import numpy as np
from numba import carray, njit, types

from asr_core.ops.cpu.intrinsics import pointer_to

# A kernel's parameter that is a contiguous tensor for the caller (0: none) and its address, an int,
# inside the kernel.
Address = Any
# Makes the array of a number of elements at an address: f32_array or f64_array.
ArrayAt = Callable[[int, int], np.ndarray]


def _array_at(element: types.Type) -> ArrayAt:
    """Return a compiled function: (address, size) -> the array there, (size,)."""
    as_pointer = pointer_to(element)

    @njit(inline="always")
    def array_at(address: int, size: int) -> np.ndarray:
        return carray(as_pointer(address), size)

    return array_at


f32_array = _array_at(types.float32)
f64_array = _array_at(types.float64)
i64_array = _array_at(types.int64)
u8_array = _array_at(types.uint8)  # bytes, booleans

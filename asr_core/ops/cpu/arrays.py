"""Arrays at addresses, in compiled code."""

from typing import Any, Callable, Union

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from asr_core.ops.cpu.intrinsics import TypeOrValue, pointer_to

# A kernel's parameter that is a contiguous tensor for the caller (0: none) and its address, an int,
# inside the kernel.
Address = Any
# The zero of a float type, by which functions for both types distinguish them.
Zero = Union[np.float32, np.float64]


def _array_at(element: types.Type) -> Callable[[int, int], np.ndarray]:
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


def float_array(zero: Zero, address: int, size: int) -> np.ndarray:
    """Return the array (size,) at an address, of the type of ``zero``."""
    raise NotImplementedError("compiled code only")


@overload(float_array)
def _float_array(zero: TypeOrValue, address: TypeOrValue, size: TypeOrValue) -> Callable:
    # Not inlined by numba (but by LLVM): it would take an array that a function makes itself for a
    # local one, and drop what is written to it last. An array function as an argument would do too,
    # but numba does not cache such code.
    def single(zero: TypeOrValue, address: TypeOrValue, size: TypeOrValue) -> np.ndarray:
        return f32_array(address, size)

    def double(zero: TypeOrValue, address: TypeOrValue, size: TypeOrValue) -> np.ndarray:
        return f64_array(address, size)

    return single if zero == types.float32 else double

"""Runs numba-compiled kernels on torch's own OpenMP threads.

Torch and numba each keep a pool of threads that wait for work by spinning; on a machine with few cores two pools steal time
from each other. A kernel here is a C function of one argument, so the pool that torch already has can run it: libgomp's
``GOMP_parallel`` is called with its address. Where no libgomp is found, Python threads run it (the GIL is released).

A kernel takes its work piece by piece until none is left::

    @kernel(n_args=3, n_floats=1)
    def scale(data):
        args, floats = arguments(data, 3, 1)
        begin, end = next_piece(data)
        while begin < end:
            x, y = f32_array(args[0] + 4 * begin, end - begin), f32_array(args[1] + 4 * begin, end - begin)
            for i in range(end - begin):
                y[i] = np.float32(floats[0]) * x[i]
            begin, end = next_piece(data)

    scale(total=x.numel(), grain=16384, args=[x, y, 0], floats=[2.0])
"""

import ctypes
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

# Header of the data block: next piece, number of pieces, rows per piece, rows in all, address of the float parameters.
HEADER = 5
# Reassociation and contraction let loops vectorise; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}


@intrinsic
def _fetch_add(typingctx, pointer):  # noqa: ANN001, ANN202
    """Add 1 to the int64 at ``pointer`` in one indivisible step; return what it held."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(pointer), codegen


def _pointer_intrinsic(element: Any) -> Callable:
    @intrinsic
    def as_pointer(typingctx, address):  # noqa: ANN001, ANN202
        target = types.CPointer(element)

        def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
            return builder.inttoptr(args[0], context.get_value_type(target))

        return target(types.int64), codegen

    return as_pointer


_f32_pointer, _f64_pointer, _i64_pointer = (
    _pointer_intrinsic(t) for t in (types.float32, types.float64, types.int64)
)
_u8_pointer = _pointer_intrinsic(types.uint8)


@njit(inline="always")
def f32_array(address, size):  # noqa: ANN001, ANN201
    """The float32 array of ``size`` elements at ``address``."""
    return carray(_f32_pointer(address), size)


@njit(inline="always")
def f64_array(address, size):  # noqa: ANN001, ANN201
    """The float64 array of ``size`` elements at ``address``."""
    return carray(_f64_pointer(address), size)


@njit(inline="always")
def i64_array(address, size):  # noqa: ANN001, ANN201
    """The int64 array of ``size`` elements at ``address``."""
    return carray(_i64_pointer(address), size)


@njit(inline="always")
def u8_array(address, size):  # noqa: ANN001, ANN201
    """The bytes (booleans) of which there are ``size`` at ``address``."""
    return carray(_u8_pointer(address), size)


@njit(inline="always")
def arguments(data, n_args, n_floats):  # noqa: ANN001, ANN201
    """The integer arguments (addresses of tensors, sizes) and the float64 parameters of a kernel's data block."""
    head = carray(data, HEADER + n_args)
    return head[HEADER:], f64_array(head[4], n_floats)


@njit(inline="always")
def next_piece(data):  # noqa: ANN001, ANN201
    """Take the next rows [begin, end) of the work; begin >= end when none are left."""
    head = carray(data, HEADER)
    begin = _fetch_add(data) * head[2]
    return begin, min(head[3], begin + head[2])


@functools.lru_cache(maxsize=None)
def _say_once() -> None:
    logging.info("compiling CPU kernels: half a minute, the first time they are used on this machine")


class Kernel:
    """A compiled kernel; made by :func:`kernel`, compiled (or read from numba's cache) at the first call."""

    def __init__(self, function: Callable, n_args: int, n_floats: int) -> None:
        self._function, self._n_args, self._n_floats = function, n_args, n_floats
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _address(self) -> int:
        signature = types.void(types.CPointer(types.int64))
        try:
            self._compiled = cfunc(signature, nopython=True, cache=True, fastmath=FAST, error_model="numpy")(
                self._function
            )
        except RuntimeError:  # numba finds no folder for its cache that may be written to
            self._compiled = cfunc(signature, nopython=True, fastmath=FAST, error_model="numpy")(
                self._function
            )
        if not self._compiled.cache_hits:
            _say_once()
        return self._compiled.address

    def __call__(self, total: int, grain: int, args: Sequence[Any], floats: Sequence[float] = ()) -> None:
        """Process rows 0...total.

        Args:
          total: number of rows; 0 does nothing.
          grain: the least number of rows worth a thread of their own.
          args: contiguous tensors (their addresses are passed) and integers, in the kernel's order.
          floats: its float parameters.
        """
        if len(args) != self._n_args or len(floats) != self._n_floats:
            raise ValueError(f"{self.__name__} takes {self._n_args} arguments and {self._n_floats} floats")
        if total <= 0:
            return
        threads = min(torch.get_num_threads(), -(-total // grain))
        rows = (
            total
            if threads <= 1
            else max(1, min(-(-total // threads), max(grain, -(-total // (4 * threads)))))
        )
        params = np.array(floats if floats else (0.0,), dtype=np.float64)
        values = [a if isinstance(a, int) else a.data_ptr() for a in args]
        data = np.array([0, -(-total // rows), rows, total, params.ctypes.data, *values], dtype=np.int64)
        _launch(self._address, data.ctypes.data, threads)


def kernel(n_args: int, n_floats: int = 0) -> Callable[[Callable], Kernel]:
    """Make a :class:`Kernel` of a module-level function of one argument (see the module's example)."""
    return lambda function: Kernel(function, n_args, n_floats)


@functools.lru_cache(maxsize=None)
def _gomp_parallel() -> Optional[Any]:
    """``GOMP_parallel`` of the libgomp that torch uses, or None."""
    try:
        with open("/proc/self/maps") as f:
            paths = {line.split()[-1] for line in f if "libgomp" in line}
    except OSError:
        return None
    for path in sorted(paths, key=lambda p: "torch" not in p):
        try:
            function = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


@functools.lru_cache(maxsize=None)
def _python_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="kernel")


_ENTRY_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _launch(address: int, data: int, threads: int) -> None:
    """Call the C function at ``address`` with ``data`` on ``threads`` threads; return when all have ended."""
    if threads <= 1:
        _ENTRY_TYPE(address)(data)
        return
    gomp = _gomp_parallel()
    if gomp is not None:
        gomp(address, data, threads, 0)
        return
    function = _ENTRY_TYPE(address)
    for future in [_python_threads().submit(function, data) for _ in range(threads)]:
        future.result()

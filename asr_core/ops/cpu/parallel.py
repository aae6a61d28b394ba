"""Kernels compiled by numba that run on torch's own OpenMP threads.

Torch and numba each keep a pool of threads that wait for work by spinning; on a machine with few
cores two pools steal time from each other. A kernel here is a C function of one argument, so the
pool that torch already has can run it: libgomp's ``GOMP_parallel`` is called with its address.
Where no libgomp is found, Python threads run it (the GIL is released).

A kernel names its parameters in a NamedTuple and takes its rows piece by piece until none is left::

    class Scale(NamedTuple):
        x: Address  # any shape, R elements
        y: Address  # as x
        factor: float  # floats stand last

    @kernel(Scale)
    def scale(data: Pointer) -> None:
        a = fields(Scale, data)
        begin, end = next_piece(data)
        while begin < end:
            x, y = f32_array(a.x + 4 * begin, end - begin), f32_array(a.y + 4 * begin, end - begin)
            for i in range(end - begin):
                y[i] = np.float32(a.factor) * x[i]
            begin, end = next_piece(data)

    scale(x.numel(), 16384, Scale(x, y, factor=2.0))
"""

import ctypes
import functools
import typing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Tuple, Type, TypeVar

import numpy as np
import torch
from numba import carray, njit, types
from numba.core.ccallback import CFunc
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from asr_core.ops.cpu.intrinsics import TypeOrValue, as_f64_pointer, fetch_add
from asr_core.utils.compilation import announce_compilation, compilation

# The entries of a data block that come before the kernel's parameters: next piece, number of
# pieces, rows per piece, rows in all.
HEADER = 4
# Reassociation and contraction let loops vectorise; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}

announce_compilation()

# To a kernel's data block: all that a kernel is called with.
if TYPE_CHECKING:
    Pointer = ctypes._Pointer[ctypes.c_int64]
else:
    Pointer = ctypes.POINTER(ctypes.c_int64)
# The NamedTuple of a kernel's parameters.
Parameters = TypeVar("Parameters", bound=Tuple[Any, ...])


def fields(kind: Type[Parameters], data: Pointer) -> Parameters:
    """Return the parameters that the kernel was called with, inside the kernel: a NamedTuple
    ``kind`` of int64 and float64.
    """
    raise NotImplementedError("compiled code only")


@overload(fields, inline="always")
def _fields(kind: TypeOrValue, data: TypeOrValue) -> Callable:
    cls = kind.instance_class
    num_floats = _num_floats(cls)
    num_ints = len(cls._fields) - num_floats
    middle, end = HEADER + num_ints, HEADER + num_ints + num_floats
    tuple_of: Any = to_fixed_tuple  # an intrinsic, whose annotations ask for the typing context too

    def read_ints(kind: TypeOrValue, data: TypeOrValue) -> Tuple:
        return cls(*tuple_of(carray(data, end)[HEADER:], num_ints))

    def read_both(kind: TypeOrValue, data: TypeOrValue) -> Tuple:
        ints, floats = carray(data, end)[HEADER:middle], carray(as_f64_pointer(data), end)[middle:]
        return cls(*(tuple_of(ints, num_ints) + tuple_of(floats, num_floats)))

    return read_both if num_floats else read_ints


def _num_floats(cls: type) -> int:
    """Return the number of float parameters, which must come last."""
    is_float = [hint is float for hint in typing.get_type_hints(cls).values()]
    if is_float != sorted(is_float):
        raise TypeError(f"{cls.__name__}: a kernel's float parameters must stand last")
    return sum(is_float)


@njit(inline="always")
def next_piece(data: Pointer) -> Tuple[int, int]:
    """Claim the next rows [begin, end) of the work; begin >= end when none are left."""
    head = carray(data, HEADER)
    begin = fetch_add(data) * head[2]
    return begin, min(head[3], begin + head[2])


class _Told(CFunc):
    """A compiled C function that tells when it is compiled, rather than read from the cache."""

    def _compile_uncached(self) -> object:
        with compilation(self.__name__):
            return super()._compile_uncached()  # type: ignore[misc]  # not in the stubs


def _compile(function: Callable[[Pointer], None], cache: bool) -> CFunc:
    """Do what numba's ``cfunc`` does for a function of one pointer."""
    signature = types.void(types.CPointer(types.int64))
    options = {"nopython": True, "fastmath": FAST, "error_model": "numpy"}
    compiled = _Told(function, (signature.args, signature.return_type), locals={}, options=options)
    if cache:
        compiled.enable_caching()
    compiled.compile()
    return compiled


class Kernel(Generic[Parameters]):
    """A compiled kernel.

    Made by :func:`kernel`, compiled (or read from numba's cache) at the first call.

    Args:
      function: the kernel in Python, of one argument.
      kind: NamedTuple of its parameters.
    """

    def __init__(self, function: Callable[[Pointer], None], kind: Type[Parameters]) -> None:
        self._function = function
        self._num_floats = _num_floats(kind)
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _compiled(self) -> CFunc:
        """The compiled function, which owns the code at its address."""
        try:
            return _compile(self._function, cache=True)
        except RuntimeError:  # numba finds no folder for its cache that may be written to
            return _compile(self._function, cache=False)

    def compile(self) -> None:
        """Compile the kernel now, or read it from the cache."""
        self._address  # noqa: B018 - made when it is read

    @functools.cached_property
    def _address(self) -> int:
        address = self._compiled.address
        assert address is not None  # it is compiled
        return address

    def __call__(self, total: int, grain: int, args: Parameters) -> None:
        """Process rows 0...total.

        Args:
          total: number of rows; 0 does nothing.
          grain: the smallest number of rows worth a separate thread.
          args: parameters, whose tensors are contiguous (their addresses are passed).
        """
        if total <= 0:
            return
        threads = min(torch.get_num_threads(), -(-total // grain))
        rows = (
            total  # per piece; with several threads four pieces for each, so that a slow thread takes fewer
        )
        if threads > 1:
            rows = max(1, min(-(-total // threads), max(grain, -(-total // (4 * threads)))))
        num_ints = len(args) - self._num_floats
        ints = [a if isinstance(a, int) else a.data_ptr() for a in args[:num_ints]]
        data = np.array([0, -(-total // rows), rows, total, *ints, *[0] * self._num_floats], dtype=np.int64)
        data.view(np.float64)[HEADER + num_ints :] = args[num_ints:]
        _launch(self._address, data.ctypes.data, threads)


def kernel(kind: Type[Parameters]) -> Callable[[Callable[[Pointer], None]], Kernel[Parameters]]:
    """Make a :class:`Kernel` with the parameters ``kind`` of a module-level function (see the
    module's example).
    """
    return lambda function: Kernel(function, kind)


@functools.lru_cache(maxsize=None)
def _gomp_parallel() -> Optional[Callable[..., object]]:
    """Return ``GOMP_parallel`` of the libgomp that torch uses, or None."""
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
    """Return the threads that replace libgomp's."""
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="kernel")


_ENTRY_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _launch(address: int, data: int, threads: int) -> None:
    """Call the C function at ``address`` with ``data`` on ``threads`` threads.

    Return when all have ended.
    """
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

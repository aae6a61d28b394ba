"""All kernels of this package, compiled beforehand."""

import importlib
import pkgutil
import time
from typing import Callable, Iterator

import asr_core.ops
from asr_core.ops.cpu import dispatch
from asr_core.utils.errors import UserError

if dispatch.HAS_NUMBA:
    from asr_core.ops.cpu.parallel import Kernel
    from asr_core.utils.compilation import announce_compilation


def compile_kernels(use_others: Callable[[], None]) -> str:
    """Compile the kernels of training and of the losses, as far as they are not compiled yet.

    Args:
      use_others: calls the functions that numba compiles for the types that they are called with.

    Returns:
      A line that says what was done.

    Raises:
      UserError: numba is not installed.
    """
    if not dispatch.HAS_NUMBA:
        raise UserError("there are no kernels without the package numba: pip install numba")
    begin = time.monotonic()
    for kernel in _kernels():
        kernel.compile()
    use_others()
    new = announce_compilation().done
    return f"all kernels are ready, {new} of them compiled in {time.monotonic() - begin:.0f} s"


def _kernels() -> "Iterator[Kernel]":
    """Yield all kernels that modules of this package define."""
    for found in pkgutil.walk_packages(asr_core.ops.__path__, "asr_core.ops."):
        if "numba" not in found.name and ".cpu." not in found.name:
            continue
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if isinstance(value, Kernel) and value.__module__ == module.__name__:
                yield value

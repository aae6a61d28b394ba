"""Whether Triton kernels ran, which ones and how often; kernels turned off and on."""

import contextlib
import os
from collections import Counter
from typing import Any, Iterator

from asr_core.ops.gpu import dispatch


@contextlib.contextmanager
def counted() -> "Iterator[Counter[str]]":
    """Count the launches of Triton kernels by name; nothing is counted where triton is missing."""
    counts: "Counter[str]" = Counter()
    try:
        from triton.runtime.interpreter import GridExecutor
        from triton.runtime.jit import JITFunction
    except ImportError:
        yield counts
        return

    def counting(usual: Any, of: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not kwargs.get("warmup", False):
                counts[getattr(of(self), "__name__", "?")] += 1
            return usual(self, *args, **kwargs)

        return call

    places = [
        (JITFunction, "run", lambda kernel: kernel.fn),
        (GridExecutor, "__call__", lambda grid: grid.fn),
    ]
    usual = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for (owner, name, of), (_, _, method) in zip(places, usual):
        setattr(owner, name, counting(method, of))
    try:
        yield counts
    finally:
        for owner, name, method in usual:
            setattr(owner, name, method)


@contextlib.contextmanager
def kernels_off() -> Iterator[None]:
    """Let every operation take its plain torch form."""
    before = os.environ.get("ASR_CORE_TRITON")
    os.environ["ASR_CORE_TRITON"] = "0"
    _ask_again()
    try:
        yield
    finally:
        os.environ.pop("ASR_CORE_TRITON")
        if before is not None:
            os.environ["ASR_CORE_TRITON"] = before
        _ask_again()


def _ask_again() -> None:
    dispatch.available.cache_clear()
    dispatch.interpreted.cache_clear()

"""Words about the compilation of kernels, which takes a minute when they are first used on a
machine.

numba keeps what it compiled next to the code or, where that folder cannot be written to, in the
user's cache folder; ``NUMBA_CACHE_DIR`` names another. Files are written whole under names of their
own and then renamed, so processes that compile the same kernel at the same time do not disturb each
other.
"""

import contextlib
import functools
import logging
import sys
import time
from typing import Any, Iterator

from numba.core import event

_PAUSE = 5.0  # least seconds between two lines


class _Progress(event.Listener):
    """What is being compiled; told in a line at the start, and every few seconds.

    As a listener it hears of functions that numba compiles because they are not in its cache.
    """

    def __init__(self) -> None:
        self.done = 0
        self._depth = 0
        self._began = self._told = 0.0

    def on_start(self, what: Any) -> None:
        """Hear that numba begins to compile a function, maybe as a part of another one."""
        dispatcher = (what.data or {}).get("dispatcher")
        self.begin(getattr(dispatcher, "__name__", "a function"))

    def on_end(self, what: Any) -> None:
        """Hear that it has ended."""
        self.end()

    def begin(self, name: str) -> None:
        """Count the start of a compilation, and tell it if it is no part of another one."""
        self._depth += 1
        if self._depth > 1:
            return
        now = time.monotonic()
        if not self.done:
            self._began = self._told = now
            _tell(
                "compiling kernels for this CPU, once, in about a minute (python -m "
                f"asr_core.bin.compile_kernels does it beforehand): {name}"
            )
        elif now - self._told >= _PAUSE:
            self._told = now
            _tell(f"compiling kernels: {self.done} in {now - self._began:.0f} s, now {name}")

    def end(self) -> None:
        """Count its end."""
        self._depth -= 1
        if self._depth == 0:
            self.done += 1


def _tell(message: str) -> None:
    """Log a line or, in a program that does not log, write it to stderr."""
    if logging.getLogger().handlers:
        logging.info(message)
    else:
        with contextlib.suppress(OSError, ValueError):  # stderr is closed
            print(message, file=sys.stderr, flush=True)


@functools.lru_cache(maxsize=None)
def announce_compilation() -> _Progress:
    """Tell from now on what numba compiles in this process; return the progress so far."""
    progress = _Progress()
    event.register("numba:compile", progress)
    return progress


@contextlib.contextmanager
def compilation(name: str) -> Iterator[None]:
    """Tell that a kernel, which numba does not report by itself, is compiled in this block."""
    progress = announce_compilation()
    progress.begin(name)
    try:
        yield
    finally:
        progress.end()

"""Ending a training run cleanly on SIGTERM and Ctrl-C."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Callable, Dict, Optional, Type, Union

Handler = Union[Callable[[int, Optional[FrameType]], object], int, None]  # what signal.signal returns


class StopRequest:
    """A context in which SIGTERM and Ctrl-C only set ``signum``.

    A second Ctrl-C interrupts at once.

    It is true once the processes that train together have agreed to stop, which they do at the same
    step; see :meth:`agree`. Data-loader processes forked inside the context inherit the handlers,
    so a Ctrl-C at the terminal, which reaches them too, does not kill them.

    Args:
      quiet: print nothing when a signal arrives.

    Attributes:
      signum: the last signal that this process received, or 0.
      agreed: the signal for which all processes stop, or 0.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.signum = 0
        self.agreed = 0
        self.quiet = quiet
        self._previous: Dict[int, Handler] = {}
        self._pid = os.getpid()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def __bool__(self) -> bool:
        return self.agreed != 0

    def agree(self, signum: int) -> None:
        """Record that all processes stop for ``signum``, or, if it is 0, that they continue."""
        self.agreed = signum

    @property
    def exit_status(self) -> int:
        """The exit status by which a shell recognises a program that ended for this signal."""
        return 128 + self.agreed

    def _receive(self, signum: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != self._pid:  # a forked data loader
            return
        if self.signum == signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if self.quiet:
            return
        name = signal.Signals(signum).name
        plan = "finishing this step and writing a checkpoint; press Ctrl-C again to stop without one"
        # os.write, because logging may be in the middle of a line, holding its lock, when the
        # signal arrives
        os.write(2, f"\n{name}: {plan}\n".encode())

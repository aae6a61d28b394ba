"""Ending a training run cleanly on SIGTERM, Ctrl-C and the end of the terminal."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Type, TypeVar, Union

from asr_core.data.read_errors import TooManyUnreadable
from asr_core.utils.errors import ProcessLost

T = TypeVar("T")
Handler = Union[Callable[[int, Optional[FrameType]], object], int, None]  # what signal.signal returns


def stop_signals() -> List[int]:
    """Return the signals that ask to stop: SIGHUP is not one of them under ``nohup``."""
    signals: List[int] = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signals.append(hangup)
    return signals


class StopRequest:
    """A context in which SIGTERM, Ctrl-C and SIGHUP only set ``signum``.

    A second Ctrl-C interrupts at once.

    It is true once the processes that train together have agreed to stop, which they do at the same
    step; see :meth:`agree`. Data-loader processes forked inside the context inherit the handlers,
    so a Ctrl-C at the terminal, which reaches them too, does not kill them.

    Args:
      quiet: print nothing when a signal arrives.

    Attributes:
      signum: the last signal that this process received, or 0.
      agreed: the signal for which all processes stop, or 0.
      failure: why this process asks all of them to stop, if no signal does; else empty.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.signum = 0
        self.agreed = 0
        self.failure = ""
        self.quiet = quiet
        self._previous: Dict[int, Handler] = {}
        self._pid = os.getpid()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for signum in stop_signals():
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

    def guarding(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; stop as after SIGTERM if their loader or too many cuts are lost."""
        try:
            yield from batches
        except (ProcessLost, TooManyUnreadable) as e:
            if not self.signum:  # a signal to the whole process group ends the loaders too
                self.failure, self.signum = str(e), signal.SIGTERM

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
        with contextlib.suppress(OSError):  # the terminal may be what has ended
            os.write(2, f"\n{name}: {plan}\n".encode())

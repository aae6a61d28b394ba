"""A polite end of training on SIGTERM and Ctrl-C."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Dict, Optional


class StopRequest:
    """While entered, SIGTERM and Ctrl-C only set ``signum``; a second Ctrl-C interrupts at once.

    It is true once the processes that train together have agreed to stop, which all do at the same step: see :meth:`agree`.
    Loader processes forked meanwhile inherit this, so a Ctrl-C at the terminal, which reaches them too, does not kill them.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.signum = 0
        self.agreed = 0
        self.quiet = quiet
        self._old: Dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._old[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exc: Any) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def __bool__(self) -> bool:
        return self.agreed != 0

    def agree(self, signum: int) -> None:
        """Take note that the processes stop for ``signum``; 0: that they go on."""
        self.agreed = signum

    @property
    def exit_status(self) -> int:
        """What a shell expects of a program that ended for this signal."""
        return 128 + self.agreed

    def _note(self, signum: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != self._pid:
            return
        if self.signum == signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if self.quiet:
            return
        name = signal.Signals(signum).name
        # os.write, because logging may be in the middle of a line when the signal arrives
        os.write(
            2,
            f"\n{name}: finishing this step, then writing a checkpoint; once more Ctrl-C to stop without one\n".encode(),
        )

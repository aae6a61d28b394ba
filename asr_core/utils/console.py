"""Standard output and standard error of programs that outlive the terminal or pipe they lead to.

A console goes away: ``head`` has read enough, a connection ends, the disk behind a redirection is
full. What only tells the user how things go must not end hours of work then. So errors of standard
error are never raised, and those of standard output only where the output is the program's purpose;
a program with a log file has its record there.
"""

import contextlib
import errno
import logging
import os
import sys
from typing import Any, Iterable, Iterator, Optional, TextIO, cast

from asr_core.utils.errors import UserError
from asr_core.utils.log import log_to_files


class Console:
    """A stream of text that goes on into the void when its reader goes away.

    Args:
      stream: the stream; None if it was closed when the program started.
      name: its name, for messages.
      fd: its file descriptor.
      lasting: whether errors are silent. Otherwise they are raised, once.
    """

    def __init__(self, stream: Optional[TextIO], name: str, fd: int, lasting: bool) -> None:
        self.lasting = lasting
        self._closed = stream is None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._name = name
        self._fd = fd
        self._lost = False

    def write(self, text: str) -> int:
        """Write ``text``, or drop it if there is no reader."""
        try:
            if self._closed:
                raise OSError(errno.EBADF, "it is closed")
            self._stream.write(text)
        except BlockingIOError:  # a pipe that is full for now
            pass
        except (OSError, ValueError) as e:
            self._lose(e)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered, or drop it if there is no reader."""
        try:
            self._stream.flush()
        except BlockingIOError:
            pass
        except (OSError, ValueError) as e:
            self._lose(e)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, e: Exception) -> None:
        """Note that nobody reads this stream any more, and give it to the void.

        Raises:
          BrokenPipeError, UserError: the reader closed the pipe, or writing failed otherwise,
            unless the program is to outlive that.
        """
        if self._lost:
            return
        self._lost = True
        with contextlib.suppress(OSError):  # what is still buffered, and what other code writes
            void = os.open(os.devnull, os.O_WRONLY)
            if self._stream.fileno() == self._fd:
                os.dup2(void, self._fd)
            os.close(void)
        why = getattr(e, "strerror", None) or e
        if self.lasting:
            line = f"{self._name} is gone ({why}): from here on, this file alone says what happens"
            log_to_files(line, logging.WARNING)
        elif isinstance(e, BrokenPipeError):
            raise e
        else:
            raise UserError(f"cannot write to {self._name}: {why}") from e


@contextlib.contextmanager
def lasting_console(outlive_output: bool = False) -> Iterator[None]:
    """Return a context in which the program outlives its standard error.

    Args:
      outlive_output: whether it outlives its standard output as well.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    if not isinstance(sys.stderr, Console):
        sys.stderr = cast(TextIO, Console(sys.stderr, "standard error", 2, lasting=True))
    if not isinstance(sys.stdout, Console):
        sys.stdout = cast(TextIO, Console(sys.stdout, "standard output", 1, lasting=outlive_output))
    try:
        yield
        sys.stdout.flush()
    finally:
        with contextlib.suppress(BrokenPipeError, UserError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def outlive_output() -> None:
    """Let this program outlive its standard output, because its results are in files."""
    if isinstance(sys.stdout, Console):
        sys.stdout.lasting = True


def report_error(e: Exception) -> None:
    """Say in one line, on the console and in the log file, why the program ends."""
    line = f"error: {' '.join(str(e).split())}"
    log_to_files(line)
    print(line, file=sys.stderr)


def _open_closed_descriptors() -> None:
    """Open the void in place of standard streams that are closed.

    Otherwise the next file that the program opens takes their number, and receives what any code
    writes to standard error.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)

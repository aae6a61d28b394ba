"""The entry point of every program: one-line messages for user errors, and exit statuses."""

import errno
import os
import signal
import sys
from typing import Callable, Mapping, Optional, Protocol, Sequence, Type

from asr_core.utils.console import lasting_console, report_error
from asr_core.utils.errors import UserError
from asr_core.utils.log import log_to_files, setup_logger
from asr_core.utils.options import OptionsT
from asr_core.utils.parsing import parse_options
from asr_core.utils.runtime import die_with_parent, share_cores

_SCRIPT = "ASR_CORE_SCRIPT"  # number of the shell script that started the program, which ends with it

# Of the disk, not of the program: no space, a quota, read-only, an input/output error.
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Main(Protocol):
    """The ``main`` of a program."""

    def __call__(self, argv: Optional[Sequence[str]] = None) -> None:
        """Parse the command line, by default the process' own, and run."""
        ...


def run_program(body: Callable[[], None]) -> None:
    """Run the body of a program and end the process with its exit status.

    Args:
      body: does the work. A :class:`UserError` becomes one line on stderr and status 1, Ctrl-C
        status 130, and a reader that closes the pipe status 141, as in a shell. A full or failing
        disk is one line too, when a library writes.
    """
    share_cores()
    if os.environ.get(_SCRIPT) == str(os.getppid()):
        die_with_parent(signal.SIGTERM)
    try:
        with lasting_console():
            _run(body)
    except BrokenPipeError:
        sys.exit(141)
    except UserError as e:  # the last of the output could not be written
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)


def _run(body: Callable[[], None]) -> None:
    try:
        body()
    except UserError as e:
        report_error(e)
        sys.exit(1)
    except KeyboardInterrupt:
        log_to_files("interrupted")
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.errno in _DISK_FAULTS:
            sys.unraisablehook = lambda _: None  # writers that are collected fail once more
            where = f": {e.filename}" if e.filename else ""
            report_error(UserError(f"{e.strerror}{where}; what was complete before remains"))
            sys.exit(1)
        log_to_files("ended by an error of the program", exc_info=True)
        raise


def parse_and_run(
    options: Type[OptionsT],
    description: Optional[str],
    argv: Optional[Sequence[str]],
    body: Callable[[OptionsT], None],
    *,
    defaults: Optional[Mapping[str, object]] = None,
    log: bool = True,
) -> None:
    """Run a program whose options are one dataclass.

    Args:
      options: the dataclass, see :func:`~asr_core.utils.parsing.parse_options`.
      description: description of the program, for ``--help``.
      argv: the command line; None: the process' own.
      body: the program.
      defaults: defaults of the program, instead of the fields' own.
      log: whether to log to the console; programs that print results do not.
    """
    opts = parse_options(options, description, argv, defaults=defaults)
    if log:
        setup_logger()
    run_program(lambda: body(opts))


def program(
    options: Type[OptionsT],
    description: Optional[str],
    body: Callable[[OptionsT], None],
    *,
    log: bool = True,
) -> Main:
    """Return the ``main`` of a program whose options are one dataclass.

    The arguments are those of :func:`parse_and_run`.
    """

    def main(argv: Optional[Sequence[str]] = None) -> None:
        parse_and_run(options, description, argv, body, log=log)

    return main

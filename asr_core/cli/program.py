"""The frame of every program: one line for a user's mistake, exit statuses."""

import sys
from typing import Callable

from asr_core.utils.errors import UserError
from asr_core.utils.runtime import share_cores


def run_program(body: Callable[[], None]) -> None:
    """Run the body of a program and end the process with its exit status.

    Args:
      body: does the work. A :class:`UserError` becomes one line on stderr and status 1, Ctrl-C
        status 130, and a reader that closes the pipe status 141, as in a shell.
    """
    share_cores()
    try:
        body()
    except UserError as e:
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)

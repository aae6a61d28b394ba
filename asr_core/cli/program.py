"""What every program shares: one line for a user's mistake, exit statuses."""

import sys
from typing import Callable

from asr_core.utils.errors import UserError
from asr_core.utils.runtime import share_cores


def run_program(body: Callable[[], None]) -> None:
    """Run ``body``; end the process with status 1 and one line on a :class:`UserError`, 130 on Ctrl-C."""
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

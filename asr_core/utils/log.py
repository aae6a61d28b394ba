"""Logging of programs: to the console, and to one file per run."""

import logging
import sys
import time
from pathlib import Path
from typing import List, Optional

from asr_core.utils.errors import UserError


class _BarAwareHandler(logging.Handler):
    """Handler that writes to stderr without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        line = self.format(record)
        try:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        except ImportError:
            print(line, file=sys.stderr)


def log_to_files(message: str, level: int = logging.ERROR, exc_info: bool = False) -> None:
    """Write a line, and the present exception if asked for, to the log files alone."""
    info = sys.exc_info() if exc_info else None
    record = logging.LogRecord("root", level, sys.argv[0], 0, message, None, info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def setup_logger(
    prefix: Optional[Path] = None, rank: int = 0, world_size: int = 1, level: int = logging.INFO
) -> None:
    """Log to the console and, if ``prefix`` is given, to a file.

    Its name is ``<prefix>-YYYY-mm-dd-HH-MM-SS``, with several processes followed by ``-<rank>``.

    Args:
      prefix: beginning of the log file's path, or None for the console alone.
      rank: rank of this process; ranks above 0 write only warnings to the console.
      world_size: number of processes.
      level: lowest level that is written.

    Raises:
      UserError: the file cannot be written.
    """
    place = f" ({rank}/{world_size})" if world_size > 1 else ""
    formatter = logging.Formatter(
        f"%(asctime)s %(levelname)s [%(filename)s:%(lineno)d]{place} %(message)s", "%Y-%m-%d %H:%M:%S"
    )
    console = _BarAwareHandler(level if rank == 0 else logging.WARNING)
    handlers: List[logging.Handler] = [console]
    if prefix is not None:
        prefix = Path(prefix)
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S")
        name = f"{prefix}-{stamp}" + (f"-{rank}" if world_size > 1 else "")
        try:
            prefix.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(name, encoding="utf-8"))
        except OSError as e:
            raise UserError(
                f"cannot write the log {name}: {e.strerror or e}; make its folder writable, or copy it"
            ) from e
        logging.raiseExceptions = False  # a full disk must not print a traceback for each line
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level)

"""Logging of programs: a console, and a file per run."""

import logging
import sys
import time
from pathlib import Path
from typing import Optional


class _BarAwareHandler(logging.Handler):
    """Writes records to stderr without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        try:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        except ImportError:
            print(line, file=sys.stderr)


def setup_logger(
    prefix: Optional[Path] = None, rank: int = 0, world_size: int = 1, level: int = logging.INFO
) -> None:
    """Log to the console and, if ``prefix`` is given, to the file ``<prefix>-YYYY-mm-dd-HH-MM-SS[-rank]``.

    Args:
      prefix: beginning of the log file's path, or None for the console alone.
      rank: this process among ``world_size``; ranks above 0 keep quiet on the console.
      world_size: number of processes.
      level: the lowest level that is written.
    """
    place = f" ({rank}/{world_size})" if world_size > 1 else ""
    formatter = logging.Formatter(
        f"%(asctime)s %(levelname)s [%(filename)s:%(lineno)d]{place} %(message)s", "%Y-%m-%d %H:%M:%S"
    )
    console = _BarAwareHandler(level if rank == 0 else logging.WARNING)
    handlers: list = [console]
    if prefix is not None:
        prefix = Path(prefix)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S")
        handlers.append(
            logging.FileHandler(
                f"{prefix}-{stamp}" + (f"-{rank}" if world_size > 1 else ""), encoding="utf-8"
            )
        )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level)

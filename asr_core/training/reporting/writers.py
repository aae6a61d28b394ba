"""Files of records: JSON lines such as metrics.jsonl, and TensorBoard scalars."""

import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class JsonLines:
    """A file of one JSON object per line, such as ``metrics.jsonl``.

    Args:
      path: the file.
      lines: number of lines that belong to the run so far. Later ones, of steps that a killed run
        had not saved, are dropped.

    Attributes:
      lines: number of lines in the file.
    """

    def __init__(self, path: Path, lines: int) -> None:
        self.path = path
        self.lines = 0
        if path.is_file():
            found = path.read_text(encoding="utf-8").splitlines(keepends=True)
            if len(found) > lines:
                write_text_atomic(path, "".join(found[:lines]))
            self.lines = min(lines, len(found))

    def append(self, record: Mapping[str, object]) -> None:
        """Write one record, through to the disk.

        Raises:
          UserError: the file cannot be written.
        """
        self.append_all([record])

    def append_all(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write some records, through to the disk.

        Raises:
          UserError: the file cannot be written.
        """
        text = "".join(json.dumps(_jsonable(record), ensure_ascii=False) + "\n" for record in records)
        try:
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            why = e.strerror or e
            raise UserError(
                f"cannot write {self.path}: {why}; free some space and start the same command again"
            ) from e
        self.lines += len(records)


def read_metrics(path: Path) -> List[Dict[str, Any]]:
    """Return all records of a ``metrics.jsonl`` except a last line that was cut off."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Scalars:
    """A writer of TensorBoard scalars, silent if they are unwanted or TensorBoard is missing.

    A disk error is reported once and ends the writing, because a run is worth more than its curves.

    Args:
      folder: where to write, or None for nothing.
      first_step: events of a killed run at this step and later are hidden.
    """

    def __init__(self, folder: Optional[Path], first_step: int) -> None:
        self._writer: Optional["SummaryWriter"] = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(folder), purge_step=first_step)
        except ImportError:
            logging.info("TensorBoard is not installed: no scalars are written")
        except OSError as e:
            logging.warning("no scalars for TensorBoard: %s", e)

    def add(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        """Record ``<prefix><name>`` for each name and value."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(prefix + name, value, step)
            self._writer.flush()
        except OSError as e:
            logging.warning("no more scalars for TensorBoard: %s", e)
            self._writer = None

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _jsonable(record: Mapping[str, object]) -> Dict[str, object]:
    """Replace numbers that JSON has no form for by None."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}

"""Files of records: JSON lines such as metrics.jsonl, and TensorBoard scalars."""

import contextlib
import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from asr_core.utils.errors import UserError
from asr_core.utils.files import write_bytes_atomic
from asr_core.utils.lock import check_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class JsonLines:
    """A file of one JSON object per line, such as ``metrics.jsonl``.

    Lines that are no JSON objects, because a disk or another program damaged them, are moved to
    ``<name>.damaged`` with one warning.

    Args:
      path: the file.
      lines: number of lines that belong to the run so far. Later ones, of steps that a killed run
        had not saved, are dropped.
      last_step: the step that they go up to; it tells where they end if some lines are damaged.

    Attributes:
      lines: number of lines in the file.
    """

    def __init__(self, path: Path, lines: int, last_step: int) -> None:
        self.path = path
        self.lines = 0
        if path.is_file():
            found = [(line, _record_in(line)) for line in _lines_of(path)]
            known = [line for line, record in found if record and _step_of(record) <= last_step][:lines]
            _set_aside(path, [line for line, record in found[:lines] if record is None])
            if len(known) < len(found):
                write_bytes_atomic(path, b"".join(known))
            self.lines = len(known)

    def append(self, record: Mapping[str, object]) -> None:
        """Write one record, through to the disk.

        Raises:
          UserError: the file cannot be written.
        """
        self.append_all([record])

    def append_all(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write some records, through to the disk.

        Raises:
          UserError: the file cannot be written, or another process has taken over its folder.
        """
        check_folder(self.path.parent)
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
    """Return all records of a ``metrics.jsonl``, without lines that are cut off or damaged."""
    found = (_record_in(line) for line in _lines_of(path))
    return [record for record in found if record is not None]


def _lines_of(path: Path) -> List[bytes]:
    """Return the lines with their ends; only a line feed ends one, no other character."""
    return path.read_bytes().splitlines(keepends=True)


def _record_in(line: bytes) -> Optional[Dict[str, Any]]:
    """Return the record in a line, or None if there is none."""
    try:
        record = json.loads(line.decode("utf-8")) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _step_of(record: Mapping[str, Any]) -> float:
    step = record.get("batch_idx_train", record.get("batch", 0))
    return step if isinstance(step, (int, float)) else math.inf


def _set_aside(path: Path, damaged: Sequence[bytes]) -> None:
    """Append damaged lines of ``path`` to a file of their own."""
    if damaged:
        aside = path.with_name(f"{path.name}.damaged")
        logging.warning("%s: %d damaged lines, moved to %s", path, len(damaged), aside)
        with contextlib.suppress(OSError), open(aside, "ab") as f:
            f.write(b"".join(damaged))


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

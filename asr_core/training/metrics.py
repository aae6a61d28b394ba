"""Losses per frame, and where they are recorded: metrics.jsonl and TensorBoard."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

_FRAMES_PER_SECOND = 100


class MetricsTracker(Dict[str, float]):
    """Sums of losses, with the number of frames they are sums over under the key ``frames``."""

    def add(self, other: Mapping[str, float], keep: float = 1.0) -> "MetricsTracker":
        """``keep`` times this plus ``other``; values that are not finite are left out."""
        out = MetricsTracker({name: value * keep for name, value in self.items()})
        for name, value in other.items():
            if math.isfinite(value):
                out[name] = out.get(name, 0.0) + value
        return out

    def per_frame(self) -> Iterator[Tuple[str, float]]:
        """Pairs of name and loss per frame."""
        frames = self.get("frames", 0.0)
        for name, value in self.items():
            if name != "frames":
                yield name, value / frames if frames else math.nan

    def __str__(self) -> str:
        losses = ", ".join(f"{name}={value:.4g}" for name, value in self.per_frame())
        return f"{losses}, over {self.get('frames', 0.0):.2f} frames. "


def losses_of(out: Any) -> MetricsTracker:
    """What a :class:`~asr_core.training.recipe.BatchLoss` says, as numbers."""
    import torch

    names = ["loss", *out.parts]
    values = torch.stack([out.loss.detach().float(), *(p.float() for p in out.parts.values())]).tolist()
    return MetricsTracker({"frames": float(out.frames), **dict(zip(names, values))})


def sums_of(out: Any, batch: Optional[Mapping[str, Any]]) -> MetricsTracker:
    """The losses of a rank's batch, and its size: all that the ranks' sums are needed of; zeros where it has none."""
    if batch is None:
        return MetricsTracker(loss=0.0, frames=0.0, audio=0.0, utterances=0.0)
    supervisions = batch["supervisions"]
    audio = float(supervisions["num_frames"].sum()) / _FRAMES_PER_SECOND
    return MetricsTracker(losses_of(out), audio=audio, utterances=float(len(supervisions["text"])))


def sum_over_ranks(parts: Iterable[Mapping[str, float]]) -> MetricsTracker:
    """The sum of each value; what is not finite anywhere is not finite in the sum."""
    out = MetricsTracker()
    for part in parts:
        for name, value in part.items():
            out[name] = out.get(name, 0.0) + value
    return out


class JsonLines:
    """A file of one JSON object a line, such as ``metrics.jsonl``.

    Args:
      path: the file.
      lines: how many lines belong to the run so far; later ones (of steps that a killed run had not saved) are dropped.
    """

    def __init__(self, path: Path, lines: int) -> None:
        self.path = path
        self.lines = lines
        if path.is_file():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)
            if len(kept) > lines:
                write_text_atomic(path, "".join(kept[:lines]))
            self.lines = min(lines, len(kept))
        else:
            self.lines = 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, to the disk."""
        self.append_all([record])

    def append_all(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write some records, to the disk."""
        text = "".join(json.dumps(_jsonable(record), ensure_ascii=False) + "\n" for record in records)
        try:
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise UserError(
                f"cannot write {self.path}: {e.strerror or e}; free some space and start the same command again"
            ) from e
        self.lines += len(records)


def read_metrics(path: Path) -> List[Dict[str, Any]]:
    """All records of a ``metrics.jsonl``; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Scalars:
    """TensorBoard scalars; silent if TensorBoard is not wanted, not installed, or cannot write.

    Args:
      folder: where to write, or None for nothing.
      first_step: events of a killed run at this step and later are hidden.
    """

    def __init__(self, folder: Optional[Path], first_step: int) -> None:
        self._writer: Any = None
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


def _jsonable(record: Mapping[str, Any]) -> Dict[str, Any]:
    return {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in record.items()}

"""Records of a run's steps, validations and epochs, in the log, files and a picture."""

import logging
import math
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional

import torch

from asr_core.training.metrics import MetricsTracker
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.plot import plot_losses
from asr_core.training.reporting.writers import JsonLines, Scalars
from asr_core.training.state import TrainState
from asr_core.training.task import Measurement, Task
from asr_core.utils.errors import UserError

_SECONDS_BETWEEN_PLOTS = 60.0  # drawing takes about a second, which short epochs should not pay each time


@dataclass(frozen=True)
class StepRecord:
    """A training step that is logged.

    Attributes:
      info: its losses.
      index: its place in the epoch, from 0.
      utterances: number of utterances in its batches.
      lr: the learning rate.
      loss_scale: the loss scale of float16, or None in other precisions.
      grad_norm: norm of the gradients.
      rate: size of batches per second of training, in the unit of the task.
      time_left: time left of the run, as text.
      dropped: number of cuts dropped so far.
    """

    info: MetricsTracker
    index: int
    utterances: int
    lr: float
    loss_scale: Optional[float]
    grad_norm: float
    rate: float
    time_left: str
    dropped: int


class RunLogger:
    """Records what happens in a run; rank 0 writes files, all ranks log.

    Args:
      opts: where to write, and whether to write for TensorBoard.
      state: the counters of the run.
      is_main: whether this process writes.
      device: its memory is reported.
      task: names the unit of rates.
    """

    def __init__(
        self, opts: LoopOptions, state: TrainState, is_main: bool, device: torch.device, task: Task
    ) -> None:
        self.exp_dir = Path(opts.exp_dir)
        self.state = state
        self.device = device
        self.task = task
        metrics = self.exp_dir / "metrics.jsonl"
        self._metrics = JsonLines(metrics, state.metrics_lines, state.batch_idx_train) if is_main else None
        folder = self.exp_dir / "tensorboard" if opts.tensorboard and is_main else None
        self._scalars = Scalars(folder, first_step=state.batch_idx_train + 1)
        self._drawn_at = time.monotonic()

    def step(self, step: StepRecord) -> None:
        """Record a training step."""
        state = self.state
        grad_scale = f", grad_scale: {step.loss_scale}" if step.loss_scale is not None else ""
        logging.info(
            "Epoch %d, batch %d, loss[%s], tot_loss[%s], batch size: %d, lr: %.2e%s, grad norm: %.3g, "
            "rate: %.1f %s/s, %s, left: %s",
            state.epoch,
            step.index,
            step.info,
            state.tot_loss,
            step.utterances,
            step.lr,
            grad_scale,
            step.grad_norm,
            step.rate,
            self.task.unit,
            peak_memory(self.device),
            step.time_left,
        )
        losses, averaged = dict(step.info.per_frame()), dict(state.tot_loss.per_frame())
        extra = {
            "tot_loss": averaged.get("loss", math.nan),
            "frames": step.info["frames"],
            "lr": step.lr,
            "grad_norm": step.grad_norm,
            "skipped": state.bad_batches,
        }
        scalars = {
            "learning_rate": step.lr,
            "epoch": state.epoch,
            "grad_norm": step.grad_norm,
            "bad_batches": state.bad_batches,
            self.task.rate_name: step.rate,
            "dropped_cuts": step.dropped,
        }
        if step.loss_scale is not None:
            extra["grad_scale"] = scalars["grad_scale"] = step.loss_scale
        self._write("train", losses, {**extra, "rate": round(step.rate, 2)})
        self._scalars.add("train/", scalars, state.batch_idx_train)
        self._scalars.add("train/current_", losses, state.batch_idx_train)
        self._scalars.add("train/tot_", averaged, state.batch_idx_train)

    def bad_batch(self, what: str) -> None:
        """Record that a step was left out because of its ``what``."""
        self._write("bad", {}, {"what": what, "skipped": self.state.bad_batches})
        self._scalars.add("train/", {"bad_batches": self.state.bad_batches}, self.state.batch_idx_train)

    def recovery(self, trouble: str, back_to: str) -> None:
        """Record that the run went back because of ``trouble``."""
        state = self.state
        extra = {
            "trouble": trouble,
            "back_to": back_to,
            "lr_factor": state.lr_factor,
            "recoveries": state.recoveries,
        }
        self._write("recovery", {}, extra)
        self._scalars.add("train/", {"recoveries": state.recoveries}, state.batch_idx_train)

    def valid_set(self, name: str, losses: MetricsTracker) -> None:
        """Record the losses on one of several validation sets."""
        logging.info("Epoch %d, validation on %s: %s", self.state.epoch, name, losses)
        self._scalars.add(f"train/{name}_valid_", dict(losses.per_frame()), self.state.batch_idx_train)

    def valid(self, losses: MetricsTracker, seconds: float) -> None:
        """Record the losses on all validation sets together, and the time that they took."""
        logging.info("Epoch %d, validation: %s(%.1f s)", self.state.epoch, losses, seconds)
        values = dict(losses.per_frame())
        self._write("valid", values, {})
        self._scalars.add("train/valid_", values, self.state.batch_idx_train)

    def measurement(self, found: Measurement, seconds: float) -> None:
        """Record a task's measurement besides the loss, and the time that it took."""
        logging.info("Epoch %d, %s (%.1f s)", self.state.epoch, found.text, seconds)
        self._write(found.kind, {}, found.record)
        self._scalars.add("train/", found.scalars, self.state.batch_idx_train)

    def epoch(self, train_loss: float, valid_loss: float) -> None:
        """Record the end of an epoch."""
        losses = {"train_loss": train_loss, "valid_loss": valid_loss}
        self._write("epoch", losses, {"skipped": self.state.bad_batches})

    def draw(self, in_between: bool = False) -> None:
        """Draw losses and word error rates.

        Args:
          in_between: do nothing if they were drawn a short while ago.
        """
        recent = time.monotonic() - self._drawn_at < _SECONDS_BETWEEN_PLOTS
        if self._metrics is None or (in_between and recent):
            return
        self._drawn_at = time.monotonic()
        try:
            plot_losses(self.exp_dir)
        except (UserError, KeyError, TypeError, ValueError) as e:  # a run is worth more than its picture
            logging.warning("no picture of the losses: %s", e)

    def close(self) -> None:
        """Finish the files."""
        self._scalars.close()

    def _write(self, kind: str, losses: Mapping[str, float], extra: Mapping[str, object]) -> None:
        """Append a record of ``losses`` and ``extra`` to metrics.jsonl."""
        if self._metrics is None:
            return
        state = self.state
        where: Dict[str, object] = {
            "type": kind,
            "epoch": state.epoch,
            "batch": state.batches_done,
            "batch_idx_train": state.batch_idx_train,
        }
        self._metrics.append({**where, **losses, **extra, "time": round(time.time(), 1)})
        state.metrics_lines = self._metrics.lines


def peak_memory(device: torch.device) -> str:
    """Return the most memory used so far: by tensors on the GPU, or resident in this process."""
    if device.type == "cuda":
        return f"GPU memory: {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes, or KiB on Linux
    return f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB"

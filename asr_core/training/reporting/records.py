"""What a run leaves behind of its steps, validations and epochs: lines of the log, metrics.jsonl, TensorBoard, a picture."""

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import torch

from asr_core.training.metrics import MetricsTracker
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.plot import plot_losses
from asr_core.training.reporting.writers import JsonLines, Scalars
from asr_core.training.state import TrainState
from asr_core.training.task import Measurement, Task
from asr_core.utils.errors import UserError

_SECONDS_BETWEEN_PLOTS = 60.0


class RunLogger:
    """Rank 0 writes; on other ranks only the log does.

    Args:
      opts: where, and whether TensorBoard is wanted.
      state: where the run stands.
      is_main: whether this process writes.
      device: whose memory is reported.
      unit: what the rate counts in a second: ``"s"`` of audio, or what else batches are made of.
    """

    def __init__(
        self, opts: LoopOptions, state: TrainState, is_main: bool, device: torch.device, task: Task
    ) -> None:
        self.exp_dir = Path(opts.exp_dir)
        self.state = state
        self.device = device
        self.task = task
        self._metrics = JsonLines(self.exp_dir / "metrics.jsonl", state.metrics_lines) if is_main else None
        folder = self.exp_dir / "tensorboard" if opts.tensorboard and is_main else None
        self._scalars = Scalars(folder, first_step=state.batch_idx_train + 1)
        self._drawn_at = time.monotonic()

    def step(
        self,
        info: MetricsTracker,
        index: int,
        utterances: int,
        lr: float,
        scale: Optional[float],
        more: Mapping[str, Any],
    ) -> None:
        """A training step.

        Args:
          info: its losses.
          index: its place in the epoch, from 0.
          utterances: in its batches.
          lr: learning rate.
          scale: loss scale, None where there is none.
          more: ``rate`` in units per second, ``left`` (time), ``grad_norm``, ``dropped`` (cuts so far).
        """
        state = self.state
        shown_scale = f", grad_scale: {scale}" if scale is not None else ""
        logging.info(
            "Epoch %d, batch %d, loss[%s], tot_loss[%s], batch size: %d, lr: %.2e%s, grad norm: %.3g, rate: %.1f %s/s, %s, left: %s",
            state.epoch, index, info, state.tot_loss, utterances, lr, shown_scale, more["grad_norm"], more["rate"], self.task.unit,
            peak_memory(self.device), more["left"],
        )  # fmt: skip
        values, tot = dict(info.per_frame()), dict(state.tot_loss.per_frame())
        extra = {
            "tot_loss": tot["loss"],
            "frames": info["frames"],
            "lr": lr,
            "grad_norm": more["grad_norm"],
            "skipped": state.bad_batches,
        }
        scalars = {
            "learning_rate": lr,
            "epoch": state.epoch,
            "grad_norm": more["grad_norm"],
            "bad_batches": state.bad_batches,
        }
        scalars[self.task.rate_name] = more["rate"]
        scalars["dropped_cuts"] = more["dropped"]
        if scale is not None:
            extra["grad_scale"] = scalars["grad_scale"] = scale
        self._write("train", values, {**extra, "rate": round(more["rate"], 2)})
        self._scalars.add("train/", scalars, state.batch_idx_train)
        self._scalars.add("train/current_", values, state.batch_idx_train)
        self._scalars.add("train/tot_", tot, state.batch_idx_train)

    def bad_batch(self, what: str) -> None:
        """A step was left out because of its ``what``."""
        self._write("bad", {}, {"what": what, "skipped": self.state.bad_batches})
        self._scalars.add("train/", {"bad_batches": self.state.bad_batches}, self.state.batch_idx_train)

    def recovery(self, trouble: str, back_to: str) -> None:
        """The run went back because of ``trouble``."""
        state = self.state
        self._write(
            "recovery",
            {},
            {
                "trouble": trouble,
                "back_to": back_to,
                "lr_factor": state.lr_factor,
                "recoveries": state.recoveries,
            },
        )
        self._scalars.add("train/", {"recoveries": state.recoveries}, state.batch_idx_train)

    def valid_set(self, name: str, losses: MetricsTracker) -> None:
        """One of several validation sets."""
        logging.info("Epoch %d, validation on %s: %s", self.state.epoch, name, losses)
        self._scalars.add(f"train/{name}_valid_", dict(losses.per_frame()), self.state.batch_idx_train)

    def valid(self, losses: MetricsTracker, seconds: float) -> None:
        """All validation sets together."""
        logging.info("Epoch %d, validation: %s(%.1f s)", self.state.epoch, losses, seconds)
        values = dict(losses.per_frame())
        self._write("valid", values, {})
        self._scalars.add("train/valid_", values, self.state.batch_idx_train)

    def measured(self, found: Measurement, seconds: float) -> None:
        """What a task measures besides the loss at the end of an epoch."""
        logging.info("Epoch %d, %s (%.1f s)", self.state.epoch, found.text, seconds)
        self._write(found.kind, {}, found.record)
        self._scalars.add("train/", found.scalars, self.state.batch_idx_train)

    def epoch(self, train_loss: float, valid_loss: float) -> None:
        """The end of an epoch."""
        self._write(
            "epoch", {"train_loss": train_loss, "valid_loss": valid_loss}, {"skipped": self.state.bad_batches}
        )

    def draw(self, in_between: bool = False) -> None:
        """Draw losses and word error rates; ``in_between`` leaves it out if that was done a short while ago."""
        if self._metrics is None or (
            in_between and time.monotonic() - self._drawn_at < _SECONDS_BETWEEN_PLOTS
        ):
            return
        self._drawn_at = time.monotonic()
        try:
            plot_losses(self.exp_dir)
        except UserError as e:  # a picture is not worth a run
            logging.warning("no picture of the losses: %s", e)

    def close(self) -> None:
        """Finish the files."""
        self._scalars.close()

    def _write(self, kind: str, values: Mapping[str, float], extra: Mapping[str, Any]) -> None:
        if self._metrics is None:
            return
        state = self.state
        where: Dict[str, Any] = {
            "type": kind,
            "epoch": state.epoch,
            "batch": state.batches_done,
            "batch_idx_train": state.batch_idx_train,
        }
        self._metrics.append({**where, **values, **extra, "time": round(time.time(), 1)})
        state.metrics_lines = self._metrics.lines


def peak_memory(device: torch.device) -> str:
    """The most memory used so far: the GPU's tensors', or what this process had resident."""
    if device.type == "cuda":
        return f"GPU memory: {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB"

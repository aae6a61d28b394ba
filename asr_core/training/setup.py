"""A training run up to its first step: building it, resuming it, and preliminary trials."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ContextManager, List, Mapping, Optional, Protocol, runtime_checkable

import torch
from torch import Tensor

from asr_core.training.checkpoint import RunCheckpoint, TrainedParts
from asr_core.training.distributed.agreement import refuse_differences
from asr_core.training.distributed.fsdp import shard_model
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.health.diagnostics import diagnose
from asr_core.training.health.inf_check import InfCheck
from asr_core.training.health.oom_scan import scan_for_oom
from asr_core.training.health.recovery import Recovery
from asr_core.training.layers import change_layers
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.ema import ModelEma
from asr_core.training.optim.stepper import Stepper
from asr_core.training.optim.weight_noise import WeightNoise
from asr_core.training.options import LoopOptions
from asr_core.training.precision import autocast_dtype
from asr_core.training.reporting.startup_report import report_disk, report_model
from asr_core.training.resume import find_common_start
from asr_core.training.state import TrainState, seed_everything
from asr_core.training.task import Batch, EpochMetric, Task, TaskData
from asr_core.utils.device import pick_device
from asr_core.utils.errors import UserError
from asr_core.utils.files import remove_leftovers
from asr_core.utils.lock import hold_folder
from asr_core.utils.options import from_params


@runtime_checkable
class Scheduled(Protocol):
    """A module whose dropout or limits change in the course of training."""

    def set_batch_count(self, batch_count: float) -> None:
        """Set the number of reference batches so far."""


@dataclass(frozen=True)
class TrainingRun:
    """All parts of a run, built before its first step.

    Attributes:
      task: the training task.
      opts: options of the loop.
      world: the processes that train together.
      device: device of this process.
      dtype: reduced precision of the forward pass, or None for float32.
      data: the batches.
      metric: metric besides the loss, if any.
      parts: the model and what trains it.
      state: the counters.
      ckpt: saves and restores ``parts`` and ``state``.
      stepper: steps of the optimizer that are safe to take.
      noise: variational noise on the weights.
      recovery: the way back to good weights.
      scheduled: modules whose dropout or limits follow the counter of reference batches.
      inf_check: hooks that name modules with numbers that are not finite, if asked for.
    """

    task: Task
    opts: LoopOptions
    world: SingleProcess
    device: torch.device
    dtype: Optional[torch.dtype]
    data: TaskData
    metric: Optional[EpochMetric]
    parts: TrainedParts
    state: TrainState
    ckpt: RunCheckpoint
    stepper: Stepper
    noise: WeightNoise
    recovery: Recovery
    scheduled: List[Scheduled]
    inf_check: Optional[InfCheck]

    @property
    def exp_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.opts.exp_dir)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch or step has been reached."""
        epochs_done = self.state.epoch > self.opts.num_epochs
        steps_done = self.opts.max_steps > 0 and self.state.batch_idx_train >= self.opts.max_steps
        return epochs_done or steps_done

    def autocast(self) -> ContextManager[None]:
        """Return the context of the forward pass."""
        if not self.dtype:
            return contextlib.nullcontext()
        # a copy of each weight would stay until the end of the pass, and weights are used once
        keeps_copies = not self.parts.shards.divided
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=keeps_copies)

    def advance_schedules(self) -> float:
        """Advance dropout rates and other schedules of modules; return their counter.

        It counts reference batches rather than steps, so that the schedules do not depend on the
        size of batches and the number of processes.
        """
        count = self.state.count() + self.task.batch_count_offset
        for module in self.scheduled:
            module.set_batch_count(count)
        return count

    def trial_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch as the next step would compute it."""
        with self.autocast():
            return self.task.compute_loss(self.parts.model, batch, self.state.batch_idx_train + 1).loss

    def resume(self) -> None:
        """Continue from the requested checkpoint or the one that got furthest, or start a new run.

        Raises:
          UserError: the checkpoint is missing, damaged, or of another model, or the run would
            overwrite weights of others.
        """
        found = find_common_start(self.world, self.opts)
        if found is not None:
            path, content = found
            self.ckpt.restore(content, path)
            logging.info(
                "Continuing from %s: epoch %d, after batch %d",
                path,
                self.state.epoch,
                self.state.batch_idx_train,
            )
        batches_per_step = self.world.size * self.opts.accum_grad
        self.state.count_at(self.task.reference_batches * batches_per_step or 1.0)
        self.recovery.start()

    def report(self) -> float:
        """Log the data, the model and the disk space of checkpoints; return the size of an epoch.

        Raises:
          UserError: there is nothing to train on.
        """
        epoch_size = self.world.from_main(self.data.report() if self.world.is_main else 0.0)
        if self.world.is_main:
            report_model(self.parts.model)
            report_disk(
                self.parts.model,
                self.exp_dir,
                0 if 0 < self.opts.max_steps <= self.opts.num_epochs else self.opts.num_epochs,
                self.opts.keep_last_k,
                averages=2 if self.parts.ema else 1,
            )
            precision = str(self.dtype or torch.float32).replace("torch.", "")
            logging.info("Training on %s in %s", self.device, precision)
        return epoch_size

    def diagnose(self) -> None:
        """Print statistics of the model over a few batches; rank 0 does so alone."""
        if self.world.is_main:
            self.advance_schedules()
            self.parts.model.train()
            losses = (self.trial_loss(batch) for batch in self.data.train_batches(self.state.epoch))
            diagnose(self.parts.model, losses, self.exp_dir / "diagnostics.txt")

    def try_largest_batches(self) -> None:
        """Check that the largest batches fit into memory, if the task asks for it.

        Raises:
          UserError: one of them does not fit.
        """
        trials = self.data.memory_trials(self.device)
        if trials is not None and self.parts.shards.divided:
            if self.task.params.get("scan_for_oom"):
                raise UserError(
                    f"--scan-for-oom 1: the processes of --shard {self.opts.shard} cannot go on where one of "
                    "them runs out of memory: leave it out"
                )
        elif trials is not None:
            self.advance_schedules()
            scan_for_oom(trials, self.parts.model, self.trial_loss, self.device, self.world)


def hold_exp_dir(params: Mapping[str, Any], world: SingleProcess) -> ContextManager[None]:
    """Return a context in which rank 0 holds the lock of ``--exp-dir``.

    Raises:
      UserError: another process trains there.
    """
    if not world.is_main:
        return contextlib.nullcontext()
    return hold_folder(str(params["exp_dir"]), "training", "choose another --exp-dir")


def build_run(task: Task, world: SingleProcess) -> TrainingRun:
    """Build all parts of a new run.

    Args:
      task: the training task; each checkpoint records its ``params``.
      world: the processes that train together.

    Raises:
      UserError: options contradict each other, the machine or the data, or the processes read
        different data.
    """
    opts = from_params(LoopOptions, task.params)
    opts.validate()
    if world.size > 1:
        refuse_differences(world.gather(task.inputs()))
    device = pick_device(opts.device, world.local_rank)
    dtype = autocast_dtype(opts, device)
    exp_dir = Path(opts.exp_dir)
    exp_dir.mkdir(parents=True, exist_ok=True)
    if world.is_main:
        remove_leftovers(exp_dir)
    seed_everything(opts.seed)
    parts = _build_parts(task, opts, world, device, dtype)
    state = TrainState()
    ckpt = RunCheckpoint(task.params, parts, state, world, task.shaping_options())
    return TrainingRun(
        task=task,
        opts=opts,
        world=world,
        device=device,
        dtype=dtype,
        parts=parts,
        state=state,
        ckpt=ckpt,
        noise=task.weight_noise(parts.model),
        stepper=Stepper(parts.optimizer, parts.scaler, task.gradient_scaling(), parts.shards),
        recovery=Recovery(ckpt, opts, advice=task.slower_learning(), lr_option=task.lr_option),
        inf_check=InfCheck(parts.model) if opts.inf_check else None,
        scheduled=[m for m in parts.model.modules() if isinstance(m, Scheduled)],
        data=task.build_data(),
        metric=task.build_metric(),
    )


def _build_parts(
    task: Task, opts: LoopOptions, world: SingleProcess, device: torch.device, dtype: Optional[torch.dtype]
) -> TrainedParts:
    model = task.build_model().to(device)
    world.share_weights(model)
    change_layers(model, opts, device)
    shards = shard_model(model, world, device, opts.shard, opts.ddp_compression)
    optimizer = task.build_optimizer(model)
    shards.adopt(optimizer)
    return TrainedParts(
        model=model,
        optimizer=optimizer,
        scheduler=task.build_scheduler(optimizer),
        scaler=shards.grad_scaler(device, enabled=dtype == torch.float16),
        average=ModelAverage(model, opts.average_period),
        ema=ModelEma(model, task.ema_decay) if task.ema_decay else None,
        shards=shards,
    )

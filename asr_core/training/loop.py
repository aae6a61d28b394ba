"""The training loop: batches -> loss -> backward -> clip and step -> average -> log -> validate -> checkpoint."""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Tuple

import torch

from asr_core.training.checkpoint import (
    RunCheckpoint,
    copy_checkpoint,
    find_common_start,
    remove_leftovers,
    remove_old,
)
from asr_core.training.distributed.device import autocast_dtype, pick_device
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.health.bad_batches import BadBatches, named
from asr_core.training.health.diagnostics import diagnose
from asr_core.training.health.inf_check import InfCheck
from asr_core.training.health.oom_scan import scan_for_oom
from asr_core.training.health.recovery import DivergenceMonitor, Recovery
from asr_core.training.metrics import MetricsTracker, losses_of, sum_over_ranks, sums_of
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.ema import ModelEma
from asr_core.training.optim.stepper import Stepper
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.progress import Progress
from asr_core.training.reporting.records import RunLogger
from asr_core.training.reporting.startup_report import report_disk, report_model
from asr_core.training.state import TrainState, seed_everything, seed_of_epoch
from asr_core.training.task import Batch, Task
from asr_core.utils.options import from_params

Step = List[
    Tuple[Optional[Batch], int]
]  # this rank's batches of a step, None where it has none; the position in the epoch after each


class Trainer:
    """One training run, new or continued.

    Args:
      task: model, data, loss, optimizer; each checkpoint records its ``params``.
      world: the processes that train together, by default this one alone; rank 0 writes the files.
    """

    def __init__(self, task: Task, world: Optional[SingleProcess] = None) -> None:
        self.task = task
        self.opts = from_params(LoopOptions, task.params)
        self.opts.validate()
        self.world = world or SingleProcess()
        self.is_main = self.world.is_main
        self.exp_dir = Path(self.opts.exp_dir)
        self.device = pick_device(self.opts, self.world.local_rank)
        self.dtype = autocast_dtype(self.opts, self.device)
        self.stop = StopRequest(quiet=not self.is_main)

    def run(self) -> int:
        """Train to the last epoch; return the exit status: 0, or 128 + signal number if a signal ended it early."""
        self.exp_dir.mkdir(parents=True, exist_ok=True)
        if self.is_main:
            remove_leftovers(self.exp_dir)
        self._build()
        found = find_common_start(self.world, self.exp_dir, self.opts.start_epoch, self.opts.start_batch)
        if found is not None:
            path, content = found
            self.ckpt.restore(content, path)
            logging.info(
                "Continuing from %s: epoch %d, after batch %d",
                path,
                self.state.epoch,
                self.state.batch_idx_train,
            )
            del content, found
        self.state.count_at(self._reference_batches())
        self.recovery.set_rates()
        if self._finished():
            logging.info(
                "This run is finished (batch %d); larger --num-epochs or --max-steps continue it",
                self.state.batch_idx_train,
            )
            return 0
        self._report()
        if self.opts.print_diagnostics:
            self._diagnose()
            return 0
        trials = self.data.memory_trials(self.device)
        if trials is not None:
            self._set_batch_count()
            scan_for_oom(trials, self.model, self._loss_of, self.device, self.world)
        self._open_records()
        with self.stop:
            while not self._finished() and not self.stop:
                self._train_epoch()
            if self.stop:
                self._save_batch_checkpoint()
        if self.stop:
            logging.info(
                "Stopped by a signal after batch %d; the same command continues from here",
                self.state.batch_idx_train,
            )
        self.progress.close()
        self.records.close()
        if not self.stop:
            self.records.draw()
        return self.stop.exit_status if self.stop else 0

    @property
    def state(self) -> TrainState:
        """Where the run stands."""
        return self.ckpt.state

    # -- before training -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        seed_everything(self.opts.seed)
        self.model = self.task.build_model().to(self.device)
        self.optimizer = self.task.build_optimizer(self.model)
        self.scheduler = self.task.build_scheduler(self.optimizer)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.dtype == torch.float16, init_scale=1.0
        )
        average = ModelAverage(self.model, self.opts.average_period)
        decay = self.task.ema_decay
        self.ema = ModelEma(self.model, decay) if decay else None
        trained = (self.model, self.optimizer, self.scheduler, self.scaler)
        self.ckpt = RunCheckpoint(self.task.params, *trained, average, TrainState(), self.world, self.ema)
        self.world.share_weights(self.model)
        self.average = average
        self.noise = self.task.weight_noise(self.model)
        self.stepper = Stepper(self.model, self.optimizer, self.scaler, self.task.gradient_scaling())
        self.recovery = Recovery(self.ckpt, self.opts, self.task.slower_learning(), self.task.lr_option)
        self.inf_check = InfCheck(self.model) if self.opts.inf_check else None
        self.scheduled = [m for m in self.model.modules() if hasattr(m, "set_batch_count")]
        self.data = self.task.build_data()
        self.metric = self.task.build_metric()

    def _report(self) -> None:
        self.progress = Progress(
            0.0, self.opts.num_epochs, self.opts.max_steps, bar=self.is_main, unit=self.task.unit
        )
        self.progress.epoch_audio = self.world.from_main(self.data.report() if self.is_main else 0.0)
        if not self.is_main:
            return
        report_model(self.model)
        report_disk(
            self.model,
            self.exp_dir,
            self.opts.num_epochs,
            self.opts.keep_last_k,
            averages=2 if self.ema else 1,
        )
        logging.info(
            "Training on %s in %s", self.device, str(self.dtype or torch.float32).replace("torch.", "")
        )

    def _diagnose(self) -> None:
        if self.is_main:
            self._set_batch_count()
            self.model.train()
            batches = self.data.train_batches(self.state.epoch)
            diagnose(
                self.model, (self._loss_of(batch) for batch in batches), self.exp_dir / "diagnostics.txt"
            )

    def _open_records(self) -> None:
        self.records = RunLogger(self.opts, self.state, self.is_main, self.device, self.task)
        self.bad_batches = BadBatches(self.exp_dir, self.world, self.state, self.data)
        self.watch = DivergenceMonitor(self.opts, self.state)

    def _finished(self) -> bool:
        state, opts = self.state, self.opts
        return state.epoch > opts.num_epochs or (
            opts.max_steps > 0 and state.batch_idx_train >= opts.max_steps
        )

    # -- training --------------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        state = self.state
        if state.batches_done == 0:
            seed_everything(seed_of_epoch(self.opts.seed, state.epoch, self.world.rank))
            state.bucket_run = self.world.size
        self.scheduler.step_epoch(state.epoch - 1)
        self.progress.start_epoch(state.epoch, state.epoch_audio)
        if state.validation_due and not self._validate_in_epoch():
            return
        self.model.train()
        for step in self._steps():
            self._train_step(step)
            if state.batch_idx_train % self.opts.valid_interval == 0:
                self._validate_in_epoch()
            if self._finished() or state.batch_idx_train % self.opts.save_every_n == 0:
                self._save_batch_checkpoint()
            if self.stop or self._finished():
                return
        if not self.stop:
            self._end_epoch()

    def _steps(self) -> Iterator[Step]:
        """The rest of the epoch, ``--accum-grad`` batches of each rank at a time."""
        step: Step = []
        for entry in self.world.in_lockstep(self._batches(), self.state.batches_done, self.stop):
            step.append(entry)
            if len(step) == self.opts.accum_grad:
                yield step
                step = []
        if step and not self.stop:  # a step that a signal cut short is begun anew when the run continues
            yield step

    def _batches(self) -> Iterator[Batch]:
        """The rest of this rank's batches of the epoch; a loader that a signal killed ends them quietly."""
        state = self.state
        try:
            yield from self.data.train_batches(state.epoch, state.batches_done, state.bucket_run)
        except RuntimeError:
            if not self.stop.signum:
                raise

    def _train_step(self, step: Step) -> None:
        """One step on the batches of all ranks."""
        state = self.state
        state.batch_idx_train += 1
        state.batches_done = step[-1][1]
        count = self._set_batch_count()
        if self.inf_check is not None:
            self.inf_check.new_step()
        self.scheduler.epoch_share = self.progress.share(state.epoch_audio)
        self.scheduler.step_batch(state.batch_idx_train)
        with self.bad_batches.watch([batch for batch, _ in step], self.task.smaller_batches()):
            with self.noise.on(state.batch_idx_train, count):
                info, bad = self._forward_backward(step)
            if not bad:
                bad = self._optimizer_step(step, info)
        self.optimizer.zero_grad(set_to_none=True)
        audio, utterances = info.pop("audio"), int(info.pop("utterances"))
        state.epoch_audio += audio
        finite = math.isfinite(info["loss"])
        if info.is_finite():
            state.tot_loss = state.tot_loss.add(info, keep=1 - 1 / self.opts.reset_interval)
        self.average.update(state.batch_idx_train)
        if self.ema:
            self.ema.update()
        loss_per_frame = info["loss"] / max(info["frames"], 1.0)
        eta = self.progress.eta(state.epoch, state.epoch_audio, state.batch_idx_train)
        self.progress.update(audio, loss_per_frame, eta)
        if finite and self._step_of_epoch() % self.opts.log_interval == 0:
            self._log_step(info, utterances, eta)
        trouble = self.watch.look(loss_per_frame, self.stepper.scale, bad)
        if trouble is not None:
            self.records.recovery(trouble.what, self.recovery.handle(trouble))
            self._save_batch_checkpoint()

    def _forward_backward(self, step: Step) -> Tuple[MetricsTracker, str]:
        """Sum the gradients over the step's batches of all ranks; returns the losses, and what was bad, if anything."""
        info = MetricsTracker()
        for batch, _ in step:
            out = None
            with self._autocast(), self.world.shared_statistics(self.model, batch is not None):
                if batch is not None:
                    out = self.task.compute_loss(self.model, batch, self.state.batch_idx_train)
            mine = sums_of(out, None if batch is None else self.data.size_of(batch))
            info = sum_over_ranks([info, *self.world.gather(mine)])
            if not math.isfinite(info["loss"]):
                suspects = [] if batch is None or math.isfinite(mine["loss"]) else self._culprits(batch)
                return info, self._skip("loss", suspects)
            if out is not None:
                self.scaler.scale(out.loss).backward()
        self.world.sum_gradients(self.model.parameters())
        return info, ""

    def _loss_of(self, batch: Batch) -> torch.Tensor:
        """A batch's loss as it is; for trials, after which nothing is to have changed."""
        with self._autocast():
            return self.task.compute_loss(self.model, batch, self.state.batch_idx_train + 1).loss

    def _optimizer_step(self, step: Step, info: MetricsTracker) -> str:
        """Step, unless a gradient is not finite; returns what was bad, if anything."""
        scale = self.stepper.scale
        if self.stepper.step(self.state.batch_idx_train, info):
            self.state.bad_in_a_row = 0
            return ""
        if self.stepper.overflowed and scale > 1.0:  # how a loss scale that grows finds its limit
            self.state.overflows += 1
            logging.info(
                "batch %d overflows float16; the loss scale is now %g",
                self.state.batch_idx_train,
                self.stepper.scale,
            )
            return ""
        cuts = [cut for batch, _ in step if batch is not None for cut in self.data.describe(batch)]
        return self._skip("gradient", [{**cut, "value": self.stepper.grad_norm} for cut in cuts])

    def _step_of_epoch(self) -> int:
        return (self.state.batches_done - 1) // (self.world.size * self.opts.accum_grad)

    def _reference_batches(self) -> float:
        """Return how many reference batches a step is worth."""
        return self.task.reference_batches * self.world.size * self.opts.accum_grad

    def _set_batch_count(self) -> float:
        """Move dropout rates and other schedules on; returns their counter, which is in reference batches."""
        count = self.state.count() + self.task.batch_count_offset
        for module in self.scheduled:
            module.set_batch_count(count)
        return count

    def _autocast(self) -> ContextManager[None]:
        return torch.autocast(self.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    # -- what can go wrong -----------------------------------------------------------------------------------------------

    def _skip(self, what: str, suspects: List[Dict[str, Any]]) -> str:
        """Leave this step out; the same on all ranks, each with the cuts of its own that may be to blame."""
        cuts = self.bad_batches.skipped(what, suspects)
        self.records.bad_batch(what)
        return f"a {what} that is not finite, the last one of cuts {cuts}"

    def _culprits(self, batch: Batch) -> List[Dict[str, Any]]:
        """The cuts whose own loss is not finite, with that loss; all cuts, if it cannot be told."""
        with torch.no_grad(), self._autocast():
            losses = self.task.compute_loss(
                self.model, batch, self.state.batch_idx_train, reduction="none"
            ).loss.tolist()
        cuts = [{**cut, "value": loss} for cut, loss in zip(self.data.describe(batch), losses)]
        return [cut for cut in cuts if not math.isfinite(cut["value"])] or cuts

    # -- validation ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model is as validation wants it inside."""
        with self.ema.shown() if self.ema and self.task.valid_with_ema else contextlib.nullcontext():
            self.model.eval()
            yield
            self.model.train()

    def _validate_in_epoch(self) -> bool:
        self.state.validation_due = not self._validate()
        return not self.state.validation_due

    @torch.no_grad()
    def _validate(self) -> bool:
        """Measure and log the loss on the validation sets, each and all together; False if a signal came in between."""
        state = self.state
        self.progress.pause()
        total = MetricsTracker()
        began = time.monotonic()
        with self._evaluating():
            for name in self.data.valid_sets:
                losses = MetricsTracker()
                for batch in self.data.valid_batches(name):
                    if self.stop.signum:
                        break
                    with self._autocast():
                        found = losses_of(self.task.compute_loss(self.model, batch, state.batch_idx_train))
                    if found.is_finite():
                        losses = losses.add(found)
                    else:
                        logging.warning(
                            "left out of the validation, as its loss is not finite: cuts %s",
                            named(self.data.describe(batch)),
                        )
                if self.world.agree_to_stop(self.stop):
                    return False
                losses = sum_over_ranks(self.world.gather(losses))
                if len(self.data.valid_sets) > 1:
                    self.records.valid_set(name, losses)
                total = total.add(losses)
        loss = dict(total.per_frame()).get("loss", math.inf)
        if loss < state.best_valid_loss:
            state.best_valid_loss, state.best_valid_epoch = loss, state.epoch
        self.records.valid(total, time.monotonic() - began)
        more = self.task.describe_valid_loss(loss)
        if more:
            logging.info("Epoch %d, validation: %s", state.epoch, more)
        state.validated_at, state.valid_loss = state.batch_idx_train, loss
        self.progress.resume()
        return True

    def _measure(self) -> None:
        """Measure the task's own metric on validation data, each rank on its share."""
        if self.metric is None or not self.metric.due(self.state.epoch):
            return
        self.progress.pause()
        began = time.monotonic()
        with self._evaluating():
            counts = self.metric.count(self.model, self.data)
        sums = [sum(column) for column in zip(*self.world.exchange(counts))]
        self.records.measured(self.metric.result(sums), time.monotonic() - began)
        self.progress.resume()

    # -- records and files -----------------------------------------------------------------------------------------------

    def _log_step(self, info: MetricsTracker, utterances: int, eta: str) -> None:
        dropped = sum(int(row[0]) for row in self.world.exchange([self.data.num_dropped]))
        more = {
            "rate": self.progress.rate,
            "left": eta,
            "grad_norm": self.stepper.grad_norm,
            "dropped": dropped,
        }
        scale = self.stepper.scale if self.scaler.is_enabled() else None
        self.records.step(
            info, self._step_of_epoch(), utterances, self.scheduler.get_last_lr()[0], scale, more
        )

    def _save_batch_checkpoint(self) -> None:
        if self.state.batch_idx_train == 0:
            return
        self.progress.pause()
        self.ckpt.save(self.exp_dir / f"checkpoint-{self.state.batch_idx_train}.pt", self.state.epoch)
        if self.is_main:
            remove_old(self.exp_dir, self.opts.keep_last_k, self.state.batch_idx_train)
        self.progress.resume()

    def _end_epoch(self) -> None:
        state = self.state
        if state.validated_at != state.batch_idx_train and not self._validate():
            return
        self._measure()
        epoch = state.epoch
        state.train_loss = dict(state.tot_loss.per_frame()).get("loss", math.inf)
        if state.train_loss < state.best_train_loss:
            state.best_train_loss, state.best_train_epoch = state.train_loss, epoch
        self.records.epoch(state.train_loss, state.valid_loss)
        state.start_epoch(epoch + 1)
        path = self.exp_dir / f"epoch-{epoch}.pt"
        self.ckpt.save(path, epoch)
        if self.is_main:
            for best, name in (
                (state.best_train_epoch, "best-train-loss.pt"),
                (state.best_valid_epoch, "best-valid-loss.pt"),
            ):
                if best == epoch:
                    copy_checkpoint(path, self.exp_dir / name)
        self.records.draw(in_between=True)
        logging.info(
            "Epoch %d ended: train loss %.4g, validation loss %.4g", epoch, state.train_loss, state.valid_loss
        )

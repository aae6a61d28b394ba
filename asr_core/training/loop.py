"""The training loop.

Batches -> forward -> loss -> backward -> clip and step -> average -> log -> validate -> checkpoint,
in this order in this file. What it does, at what price, and with which exceptions:

- *Exact resuming.* A run that was killed or interrupted continues as if nothing had happened:
  weights, averages, optimizer, schedules, the place in the epoch and all random states are in each
  checkpoint, which is written whole or not at all. Records of steps that a killed run had not saved
  are dropped. With another number of processes than before, each batch is still used once, but
  steps consist of other batches, and dropout draws new random numbers.
- *Several processes.* Each has its own batches, and gradients are summed during the backward
  pass, so that N processes make the step of one with N batches (see
  :mod:`~asr_core.training.distributed.gradients`). Decisions that all must share (to skip, to stop,
  to go back) rest on values exchanged at each step.
- *Accumulation.* ``--accum-grad`` batches per process make one step, in the memory of a single one.
  Counters count steps, except the place in the epoch. The last step may have fewer batches.
- *Mixed precision.* float16 scales the loss; a step whose gradients overflow while the scale is
  above 1 is left out silently, which is how the scale finds its limit. bfloat16 needs no scale.
- *Waiting.* Losses are looked at when the whole step lies in the queue of the device, its update
  included: a loss that is not finite makes NaN of all gradients on all ranks, and the optimizer
  leaves out such a step on the device. It is the only time that a step waits, with ScaledAdam.
- *Bad batches.* A loss or gradient that is not finite skips the step on all ranks and names the
  cuts. Too many in a row, a collapsing loss scale or a diverging loss end the run with advice, or
  with ``--auto-recover`` return it to good weights (see :mod:`~asr_core.training.health.recovery`).
- *Averages.* The mean of the weights at every ``--average-period`` steps and, with ``--ema-decay``,
  an exponential mean over all steps; each is in float64, twice the memory of the weights.
- *Schedules of modules* (dropout, limits of balancers) follow a counter of reference batches, which
  does not depend on the size of batches and the number of processes.
- *Variational noise* is on the weights in forward and backward alone; the step moves clean ones.
- *Validation* takes place every ``--valid-interval`` steps and at the end of each epoch, with the
  exponential mean if asked for. A signal interrupts it; it is repeated when the run continues.
- *Signals.* SIGTERM, SIGHUP, Ctrl-C and the death of a loader end the run with a checkpoint, on
  all ranks after the same step. A step of which only some batches were loaded is repeated.
"""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Iterator, List, Optional

import torch

from asr_core.data.ahead import ahead
from asr_core.training.checkpoint import copy_checkpoint, remove_old
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.forward_backward import ForwardBackward, Step, Suspects
from asr_core.training.health.bad_batches import BadBatches, names_of
from asr_core.training.health.recovery import DivergenceMonitor, Trouble
from asr_core.training.metrics import MetricsTracker, losses_of, sum_over_ranks
from asr_core.training.reporting.progress import Progress
from asr_core.training.reporting.records import RunLogger, StepRecord
from asr_core.training.setup import TrainingRun, build_run, hold_exp_dir
from asr_core.training.state import seed_everything, seed_of_epoch
from asr_core.training.task import Batch, Task
from asr_core.utils.errors import UserError


def train(task: Task, world: Optional[SingleProcess] = None) -> int:
    """Train a new run, or continue one, to its last epoch.

    Args:
      task: model, data, loss and optimizer; each checkpoint records its ``params``.
      world: the processes that train together, by default this one alone; rank 0 writes the files.

    Returns:
      The exit status: 0, or 128 + the number of the signal that ended the run early.
    """
    world = world or SingleProcess()
    with hold_exp_dir(task.params, world):
        run = build_run(task, world)
        run.resume()
        if run.is_finished:
            logging.info(
                "This run is finished (batch %d); larger --num-epochs or --max-steps continue it",
                run.state.batch_idx_train,
            )
            return 0
        epoch_size = run.report()
        if run.opts.print_diagnostics:
            run.diagnose()
            return 0
        run.try_largest_batches()
        return Trainer(run, epoch_size).train()


class Trainer:
    """The loop over the steps of a run.

    Args:
      run: its parts, restored from a checkpoint if it continues.
      epoch_size: size of an epoch in the unit of the task; 0 if unknown.
    """

    def __init__(self, run: TrainingRun, epoch_size: float) -> None:
        self.run = run
        self.task, self.data, self.opts, self.state = run.task, run.data, run.opts, run.state
        self.world, self.is_main = run.world, run.world.is_main
        self.parts, self.model = run.parts, run.parts.model
        self.forward_backward = ForwardBackward(run)
        self.stop = StopRequest(quiet=not self.is_main)
        self.progress = Progress(
            epoch_size, run.opts.num_epochs, run.opts.max_steps, bar=self.is_main, unit=run.task.unit
        )
        self.logger = RunLogger(run.opts, run.state, self.is_main, run.device, run.task)
        self.bad_batches = BadBatches(run.exp_dir, run.world, run.state, run.data)
        self.monitor = DivergenceMonitor(run.opts, run.state)

    def train(self) -> int:
        """Train to the last epoch or until a signal; return the exit status."""
        with self.stop:
            while not self.run.is_finished and not self.stop:
                self._train_epoch()
            if self.stop:
                self._save_batch_checkpoint()
        self.progress.close()
        self.logger.close()
        if self.stop.failure:
            raise UserError(
                f"{self.stop.failure}; the same command continues after batch {self.state.batch_idx_train}"
            )
        if self.stop:
            logging.info(
                "Stopped by a signal after batch %d; the same command continues from here",
                self.state.batch_idx_train,
            )
            return self.stop.exit_status
        self.logger.draw()
        return 0

    def _train_epoch(self) -> None:
        """Train the rest of an epoch, or until the last step or a signal."""
        state = self.state
        if state.batches_done == 0:
            # In the middle of an epoch the random states are the checkpoint's.
            seed_everything(seed_of_epoch(self.opts.seed, state.epoch, self.world.rank))
            state.bucket_run = self.world.size
        self.parts.scheduler.step_epoch(state.epoch - 1)
        self.progress.start_epoch(state.epoch, state.epoch_audio)
        if state.validation_due and not self._validate_in_epoch():
            return
        self.model.train()
        for step in self._steps():
            self._train_step(step)
            if state.batch_idx_train % self.opts.valid_interval == 0:
                self._validate_in_epoch()
            if self.run.is_finished or state.batch_idx_train % self.opts.save_every_n == 0:
                self._save_batch_checkpoint()
            if self.stop or self.run.is_finished:
                return
        if not self.stop:
            self._end_epoch()

    # -- batches ---------------------------------------------------------------------------------

    def _steps(self) -> Iterator[Step]:
        """Yield the rest of the epoch, ``--accum-grad`` batches of each rank at a time."""
        batches: List[Optional[Batch]] = []
        position = first = self.state.batches_done
        for batch, position in self.world.in_lockstep(self._batches(), first, self.stop):
            batches.append(batch)
            if len(batches) == self.opts.accum_grad:
                yield Step(batches, position)
                batches = []
        if batches and not self.stop:  # a step that a signal cut short is repeated by the next run
            yield Step(batches, position)

    def _batches(self) -> Iterator[Batch]:
        """Yield the rest of this rank's batches of the epoch."""
        state = self.state
        batches = self.data.train_batches(state.epoch, state.batches_done, state.bucket_run)
        yield from self.stop.guarding(ahead(batches, self.run.device))

    # -- a step ----------------------------------------------------------------------------------

    def _train_step(self, step: Step) -> None:
        """Make one step on the batches of all ranks."""
        state, parts = self.state, self.parts
        state.batch_idx_train += 1
        state.batches_done = step.batches_done
        count = self.run.advance_schedules()
        if self.run.inf_check is not None:
            self.run.inf_check.new_step()
        share = self.progress.epoch_share(state.epoch_audio)
        parts.scheduler.step_batch(state.batch_idx_train, epoch_share=share)
        with self.bad_batches.reporting_errors(step.batches, self.task.smaller_batches()):
            with self.run.noise.on(state.batch_idx_train, count):
                losses = self.forward_backward(step.batches)
            self.run.stepper.start(losses.sizes() if self.run.stepper.needs_sizes else {})
            parts.optimizer.zero_grad(set_to_none=True)
            # The averages take in the weights of a skipped step too: they are means over time.
            parts.average.update(state.batch_idx_train)
            if parts.ema:
                parts.ema.update()
            # only now is there nothing left to do for the device, and something to wait for
            info, suspects = losses.settle()
            bad = self._outcome(step, suspects)
        loss_per_frame = info["loss"] / max(info["frames"], 1.0)
        self._log_step(info, loss_per_frame)
        trouble = self.monitor.check(loss_per_frame, self.run.stepper.scale, bad)
        if trouble is not None:
            self._recover(trouble)
            self._save_batch_checkpoint()  # or a killed run would meet the same trouble again

    def _outcome(self, step: Step, suspects: Optional[Suspects]) -> str:
        """Note whether the step was made.

        Args:
          step: the step.
          suspects: cuts of this rank that may be the cause if a loss was not finite, else None.

        Returns:
          What was bad; empty if nothing was.
        """
        stepper, state = self.run.stepper, self.state
        if suspects is not None:
            stepper.settle(state.batch_idx_train, finite_loss=False)
            return self._skip("loss", suspects)
        if stepper.settle(state.batch_idx_train):
            state.bad_in_a_row = 0
            return ""
        if stepper.overflowed and stepper.scale_before > 1.0:  # how a growing loss scale finds its limit
            state.overflows += 1
            logging.info(
                "batch %d overflows float16; the loss scale is now %g", state.batch_idx_train, stepper.scale
            )
            return ""
        # Which of the cuts is to blame is unknown: gradients are already summed.
        cuts = [cut for batch in step.batches if batch is not None for cut in self.data.describe(batch)]
        return self._skip("gradient", [{**cut, "value": stepper.grad_norm} for cut in cuts])

    def _skip(self, what: str, suspects: Suspects) -> str:
        """Skip this step on all ranks; return the reason.

        Args:
          what: ``"loss"`` or ``"gradient"``.
          suspects: cuts of this rank that may be the cause, with their ``value``.
        """
        names = self.bad_batches.record_skipped(what, suspects)
        self.logger.bad_batch(what)
        return f"a {what} that is not finite, the last one of cuts {names}"

    def _log_step(self, info: MetricsTracker, loss_per_frame: float) -> None:
        """Count a step in the averages and the progress, and log it if it is due."""
        state, progress = self.state, self.progress
        size, items = info.pop("audio"), int(info.pop("utterances"))
        state.epoch_audio += size
        if info.is_finite():
            state.tot_loss = state.tot_loss.add(info, keep=1 - 1 / self.opts.reset_interval)
        time_left = progress.time_left(state.epoch, state.epoch_audio, state.batch_idx_train)
        progress.update(size, loss_per_frame, time_left)
        index = (state.batches_done - 1) // (self.world.size * self.opts.accum_grad)
        if index % self.opts.log_interval or not math.isfinite(info["loss"]):
            return
        dropped = self.world.exchange([self.data.num_dropped])
        stepper = self.run.stepper
        self.logger.step(
            StepRecord(
                info=info,
                index=index,
                utterances=items,
                lr=self.parts.scheduler.get_last_lr()[0],
                loss_scale=stepper.scale if self.parts.scaler.is_enabled() else None,
                grad_norm=stepper.grad_norm,
                rate=progress.rate,
                time_left=time_left,
                dropped=sum(int(row[0]) for row in dropped),
            )
        )

    # -- validation ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Return a context in which the model is set up for validation."""
        ema = self.parts.ema if self.task.valid_with_ema else None
        self.progress.pause()
        with ema.shown() if ema else contextlib.nullcontext(), self.parts.shards.whole():
            self.model.eval()
            yield
            self.model.train()
        self.progress.resume()

    def _validate_in_epoch(self) -> bool:
        """Validate between two steps; return False if a signal interrupted it."""
        self.state.validation_due = not self._validate()
        return not self.state.validation_due

    @torch.no_grad()
    def _validate(self) -> bool:
        """Measure the loss on the validation sets; return False if a signal interrupted it."""
        state = self.state
        began = time.monotonic()
        total = MetricsTracker()
        with self._evaluating():
            for name in self.data.valid_sets:
                losses = self._valid_losses(name)
                if self.world.agree_to_stop(self.stop):
                    return False
                losses = sum_over_ranks(self.world.gather(losses))
                if len(self.data.valid_sets) > 1:
                    self.logger.valid_set(name, losses)
                total = total.add(losses)
        loss = total.mean_loss()
        if loss < state.best_valid_loss:
            state.best_valid_loss, state.best_valid_epoch = loss, state.epoch
        self.logger.valid(total, time.monotonic() - began)
        more = self.task.describe_valid_loss(loss)
        if more:
            logging.info("Epoch %d, validation: %s", state.epoch, more)
        state.validated_at, state.valid_loss = state.batch_idx_train, loss
        return True

    def _valid_losses(self, name: str) -> MetricsTracker:
        """Sum the losses over this rank's batches of a validation set, up to a signal."""
        losses = MetricsTracker()
        for batch in self.stop.guarding(ahead(self.data.valid_batches(name), self.run.device)):
            if self.stop.signum:
                break
            with self.run.autocast():
                out = self.task.compute_loss(self.model, batch, self.state.batch_idx_train)
            found = losses_of(out)
            if found.is_finite():
                losses = losses.add(found)
            else:
                logging.warning(
                    "left out of the validation, as its loss is not finite: cuts %s",
                    names_of(self.data.describe(batch)),
                )
        return losses

    def _measure(self) -> None:
        """Measure the task's own metric on validation data, each rank on its share."""
        metric = self.run.metric
        if metric is None or not metric.due(self.state.epoch):
            return
        began = time.monotonic()
        with self._evaluating():
            counts = metric.count(self.model, self.data)
        sums = [sum(column) for column in zip(*self.world.exchange(counts))]
        self.logger.measurement(metric.result(sums), time.monotonic() - began)

    # -- checkpoints -----------------------------------------------------------------------------

    def _save(self, path: Path, epoch: int) -> None:
        """Save the run, but never weights that are not finite under the name of a checkpoint."""
        trouble = self.monitor.check_weights(self.run.ckpt)
        if trouble is not None:
            self._recover(trouble)
        self.run.ckpt.save(path, epoch)

    def _recover(self, trouble: Trouble) -> None:
        self.logger.recovery(trouble.what, self.run.recovery.handle(trouble))

    def _save_batch_checkpoint(self) -> None:
        """Save the run after a step, and remove the oldest of such checkpoints."""
        if self.state.batch_idx_train == 0:  # a signal came before the first step: nothing to save
            return
        self.progress.pause()
        path = self.run.exp_dir / f"checkpoint-{self.state.batch_idx_train}.pt"
        self._save(path, self.state.epoch)
        if self.is_main:
            remove_old(self.run.exp_dir, self.opts.keep_last_k, self.state.batch_idx_train)
        self.progress.resume()

    def _end_epoch(self) -> None:
        """Validate and save the run; after a signal, the next run does so."""
        state = self.state
        if state.validated_at != state.batch_idx_train and not self._validate():
            return
        self._measure()
        epoch = state.epoch
        state.train_loss = state.tot_loss.mean_loss()
        if state.train_loss < state.best_train_loss:
            state.best_train_loss, state.best_train_epoch = state.train_loss, epoch
        self.logger.epoch(state.train_loss, state.valid_loss)
        state.start_epoch(epoch + 1)  # before saving: the checkpoint continues with the next epoch
        path = self.run.exp_dir / f"epoch-{epoch}.pt"
        self._save(path, epoch)
        if self.is_main:
            if state.best_train_epoch == epoch:
                copy_checkpoint(path, self.run.exp_dir / "best-train-loss.pt")
            if state.best_valid_epoch == epoch:
                copy_checkpoint(path, self.run.exp_dir / "best-valid-loss.pt")
        self.logger.draw(in_between=True)
        logging.info(
            "Epoch %d ended: train loss %.4g, validation loss %.4g", epoch, state.train_loss, state.valid_loss
        )

"""The training loop: batches -> loss -> backward -> clip and step -> average -> log -> validate -> checkpoint."""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import torch

from asr_core.training.averaging import ModelAverage
from asr_core.training.checkpoint import Run, copy_checkpoint, find_common_start, remove_leftovers, remove_old
from asr_core.training.device import autocast_dtype, pick_device
from asr_core.training.distributed import World
from asr_core.training.metrics import MetricsFile, MetricsTracker, Scalars, sum_over_ranks
from asr_core.training.options import TrainOptions
from asr_core.training.plot import plot_losses
from asr_core.training.progress import Progress
from asr_core.training.recipe import Recipe
from asr_core.training.report import report_disk, report_model
from asr_core.training.signals import StopRequest
from asr_core.training.state import TrainState, seed_everything, seed_of_epoch
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

_FRAMES_PER_SECOND = 100
_SECONDS_BETWEEN_PLOTS = 60.0


class Trainer:
    """One training run, new or continued.

    Args:
      params: all options; each checkpoint records them.
      recipe: model, data, loss, optimizer.
      world: the processes that train together, by default this one alone; rank 0 writes the files.
    """

    def __init__(self, params: Mapping[str, Any], recipe: Recipe, world: Optional[World] = None) -> None:
        self.params = params
        self.opts = from_params(TrainOptions, params)
        self.opts.validate()
        self.recipe = recipe
        self.world = world or World()
        self.is_main = self.world.is_main
        self.exp_dir = Path(self.opts.exp_dir)
        self.device = pick_device(self.opts, self.world.local_rank)
        self.dtype = autocast_dtype(self.opts, self.device)
        self.stop = StopRequest(quiet=not self.is_main)
        self.drawn_at = time.monotonic()

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
            logging.info("Continuing from %s: epoch %d, after batch %d", path, self.state.epoch, self.state.batch_idx_train)
            del content, found
        if self._finished():
            logging.info("This run is finished (batch %d); larger --num-epochs or --max-steps continue it", self.state.batch_idx_train)
            return 0
        self._report()
        self._open_records()
        with self.stop:
            while not self._finished() and not self.stop:
                self._train_epoch()
            if self.stop:
                self._save_batch_checkpoint()
        if self.stop:
            logging.info("Stopped by a signal after batch %d; the same command continues from here", self.state.batch_idx_train)
        self.progress.close()
        self.scalars.close()
        if self.is_main and not self.stop:
            self._draw()
        return self.stop.exit_status if self.stop else 0

    @property
    def state(self) -> TrainState:
        """Where the run stands."""
        return self.ckpt.state

    # -- before training -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        seed_everything(self.opts.seed)
        self.model = self.recipe.build_model().to(self.device)
        self.optimizer = self.recipe.build_optimizer(self.model)
        self.scheduler = self.recipe.build_scheduler(self.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16, init_scale=1.0)
        average = ModelAverage(self.model, self.opts.average_period)
        self.ckpt = Run(self.params, self.model, self.optimizer, self.scheduler, self.scaler, average, TrainState(), self.world)
        self.world.share_weights(self.model)
        self.average = average
        self.scheduled = [m for m in self.model.modules() if hasattr(m, "set_batch_count")]
        self.data = self.recipe.build_datamodule()
        self.train_cuts = self.recipe.train_cuts()
        self.valid_sets = self.recipe.valid_sets()

    def _report(self) -> None:
        self.progress = Progress(0.0, self.opts.num_epochs, self.opts.max_steps, bar=self.is_main)
        if not self.is_main:
            return
        summary = self.recipe.report_data(self.data, self.train_cuts, self.valid_sets)
        self.progress.epoch_audio = summary.seconds
        report_model(self.model)
        report_disk(self.model, self.exp_dir, self.opts.num_epochs, self.opts.keep_last_k)
        logging.info("Training on %s in %s", self.device, str(self.dtype or torch.float32).replace("torch.", ""))

    def _open_records(self) -> None:
        self.metrics = MetricsFile(self.exp_dir / "metrics.jsonl", self.state.metrics_lines) if self.is_main else None
        folder = self.exp_dir / "tensorboard" if self.opts.tensorboard and self.is_main else None
        self.scalars = Scalars(folder, first_step=self.state.batch_idx_train + 1)

    def _finished(self) -> bool:
        state, opts = self.state, self.opts
        return state.epoch > opts.num_epochs or (opts.max_steps > 0 and state.batch_idx_train >= opts.max_steps)

    # -- training --------------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        state = self.state
        if state.batches_done == 0:
            seed_everything(seed_of_epoch(self.opts.seed, state.epoch, self.world.rank))
            state.alike = self.world.size
        self.scheduler.step_epoch(state.epoch - 1)
        self.progress.start_epoch(state.epoch, state.epoch_audio)
        if state.validation_due and not self._validate_in_epoch():
            return
        self.model.train()
        for batch, position in self.world.in_step(self._batches(), state.batches_done, self.stop):
            self._train_step(batch, position)
            if state.batch_idx_train % self.opts.valid_interval == 0:
                self._validate_in_epoch()
            if self._finished() or state.batch_idx_train % self.opts.save_every_n == 0:
                self._save_batch_checkpoint()
            if self.stop or self._finished():
                return
        if not self.stop:
            self._end_epoch()

    def _batches(self) -> Iterator[Dict[str, Any]]:
        """The rest of this rank's batches of the epoch; a loader that a signal killed ends them quietly."""
        state = self.state
        try:
            yield from self.data.train_dataloader(self.train_cuts, state.epoch, state.batches_done, state.alike)
        except RuntimeError:
            if not self.stop.signum:
                raise

    def _train_step(self, batch: Optional[Dict[str, Any]], position: int) -> None:
        """One step on the batches of all ranks; ``batch`` is this rank's, None if it has none."""
        state = self.state
        state.batch_idx_train += 1
        state.batches_done = position
        self._set_batch_count()
        out = None
        if batch is not None:
            with self._autocast():
                out = self.recipe.compute_loss(self.model, batch, state.batch_idx_train)
        mine = _tracker(out, batch)
        info = sum_over_ranks(self.world.gather(mine))
        audio, utterances = info.pop("audio"), int(info.pop("utterances"))
        state.epoch_audio += audio
        self.scheduler.step_batch(state.batch_idx_train)
        if not math.isfinite(info["loss"]):
            self._skip(None if math.isfinite(mine["loss"]) else batch, "loss")
        else:
            if out is not None:
                self.scaler.scale(out.loss).backward()
            self.world.sum_gradients(self.model.parameters())
            if self._optimizer_step():
                state.bad_in_a_row = 0
            else:
                self._skip(batch, "gradient")
            state.tot_loss = state.tot_loss.add(info, keep=1 - 1 / self.opts.reset_interval)
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(state.batch_idx_train)
        loss_per_frame = info["loss"] / max(info["frames"], 1.0)
        eta = self.progress.eta(state.epoch, state.epoch_audio, state.batch_idx_train)
        self.progress.update(audio, loss_per_frame, eta)
        if self._step_of_epoch() % self.opts.log_interval == 0 and math.isfinite(info["loss"]):
            self._log_step(info, utterances, eta)

    def _step_of_epoch(self) -> int:
        return (self.state.batches_done - 1) // self.world.size

    def _optimizer_step(self) -> bool:
        """Step; False if it was left out because a gradient is not finite (with loss scaling that is no reason to worry)."""
        checks_itself = hasattr(self.optimizer, "skipped")
        if not self.scaler.is_enabled() and not checks_itself:
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            if not torch.isfinite(torch.nn.utils.get_total_norm(grads)):
                return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled():
            self._tend_scale()
            return True
        return not (checks_itself and self.optimizer.skipped)

    def _tend_scale(self) -> None:
        """Help a small loss scale to grow; stop where it collapses."""
        scale, n = self.scaler.get_scale(), self.state.batch_idx_train
        if (scale < 2 and n % 25 == 0) or (scale < 8 and n % 100 == 0) or (scale < 32 and n % 400 == 0):
            self.scaler.update(scale * 2.0)
        if scale < 1.0e-5:
            raise UserError(
                f"the loss scale of float16 fell to {scale:.1e} at batch {n}: gradients do not fit; "
                f"lower --base-lr (now {self.opts.base_lr}) by 0.005, or use --use-bf16 1"
            )
        if scale < 0.01:
            logging.warning("grad scale is small: %.2e", scale)

    def _set_batch_count(self) -> None:
        """Move dropout rates and other schedules on; their counter is in batches of ``ref_duration`` seconds."""
        per_batch = float(self.params["max_duration"]) * self.world.size / self.opts.ref_duration
        for module in self.scheduled:
            module.set_batch_count(self.state.batch_idx_train * per_batch + self.recipe.batch_count_offset)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    # -- what can go wrong -----------------------------------------------------------------------------------------------

    def _skip(self, batch: Optional[Dict[str, Any]], what: str) -> None:
        """Name the cuts of a batch that cannot be used, count it, stop if there are too many in a row.

        ``batch`` is this rank's, None if it is not to blame.
        """
        state = self.state
        state.bad_in_a_row += 1
        state.bad_batches += 1
        suspects = [] if batch is None else self._culprits(batch) if what == "loss" else _cut_ids(batch)
        ids = [cut_id for of_rank in self.world.gather(suspects) for cut_id in of_rank]
        shown = ", ".join(ids[:10]) + (", ..." if len(ids) > 10 else "")
        level = logging.WARNING if self.is_main else logging.INFO
        logging.log(
            level, "batch %d is skipped, its %s is not finite (%d so far); cuts: %s", state.batch_idx_train, what, state.bad_batches, shown
        )
        if state.bad_in_a_row >= self.opts.max_bad_batches:
            advice = f"lower --base-lr (now {self.opts.base_lr}) or raise --warm-step, and look at the cuts"
            if self.dtype == torch.float16:
                advice = "use --use-bf16 1 or float32, or " + advice
            raise UserError(
                f"{state.bad_in_a_row} batches in a row had a {what} that is not finite, the last one of cuts {shown}: {advice}"
            )

    def _culprits(self, batch: Dict[str, Any]) -> List[str]:
        """Ids of the cuts whose own loss is not finite; of all cuts, if that cannot be told."""
        with torch.no_grad(), self._autocast():
            losses = self.recipe.compute_loss(self.model, batch, self.state.batch_idx_train, reduction="none").loss
        ids = _cut_ids(batch)
        return [i for i, finite in zip(ids, torch.isfinite(losses).tolist()) if not finite] or ids

    # -- validation ------------------------------------------------------------------------------------------------------

    def _validate_in_epoch(self) -> bool:
        self.state.validation_due = not self._validate()
        return not self.state.validation_due

    @torch.no_grad()
    def _validate(self) -> bool:
        """Measure and log the loss on the validation sets, each and all together; False if a signal came in between."""
        state = self.state
        self.progress.pause()
        self.model.eval()
        total = MetricsTracker()
        began = time.monotonic()
        for name, cuts in self.valid_sets.items():
            losses = MetricsTracker()
            for batch in self.data.valid_dataloader(cuts):
                if self.stop.signum:
                    break
                with self._autocast():
                    losses = losses.add(_losses(self.recipe.compute_loss(self.model, batch, state.batch_idx_train)))
            if self.world.agree_to_stop(self.stop):
                return False
            losses = sum_over_ranks(self.world.gather(losses))
            if len(self.valid_sets) > 1:
                logging.info("Epoch %d, validation on %s: %s", state.epoch, name, losses)
                self.scalars.add(f"train/{name}_valid_", dict(losses.per_frame()), state.batch_idx_train)
            total = total.add(losses)
        self.model.train()
        values = dict(total.per_frame())
        loss = values.get("loss", math.inf)
        if loss < state.best_valid_loss:
            state.best_valid_loss, state.best_valid_epoch = loss, state.epoch
        logging.info("Epoch %d, validation: %s(%.1f s)", state.epoch, total, time.monotonic() - began)
        self._record("valid", values, {})
        self.scalars.add("train/valid_", values, state.batch_idx_train)
        state.validated_at, state.valid_loss = state.batch_idx_train, loss
        self.progress.resume()
        return True

    # -- records and files -----------------------------------------------------------------------------------------------

    def _log_step(self, info: MetricsTracker, batch_size: int, eta: str) -> None:
        state = self.state
        lr = self.scheduler.get_last_lr()[0]
        scale = f", grad_scale: {self.scaler.get_scale()}" if self.scaler.is_enabled() else ""
        memory = f", GPU memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if self.device.type == "cuda" else ""
        logging.info(
            "Epoch %d, batch %d, loss[%s], tot_loss[%s], batch size: %d, lr: %.2e%s, rate: %.1f s/s%s, left: %s",
            state.epoch, self._step_of_epoch(), info, state.tot_loss, batch_size, lr, scale, self.progress.rate, memory, eta,
        )  # fmt: skip
        values, tot = dict(info.per_frame()), dict(state.tot_loss.per_frame())
        extra = {"tot_loss": tot["loss"], "frames": info["frames"], "lr": lr, "rate": round(self.progress.rate, 2)}
        if self.scaler.is_enabled():
            extra["grad_scale"] = self.scaler.get_scale()
            self.scalars.add("train/", {"grad_scale": extra["grad_scale"]}, state.batch_idx_train)
        self._record("train", values, extra)
        self.scalars.add("train/", {"learning_rate": lr, "epoch": state.epoch}, state.batch_idx_train)
        self.scalars.add("train/current_", values, state.batch_idx_train)
        self.scalars.add("train/tot_", tot, state.batch_idx_train)

    def _record(self, kind: str, values: Mapping[str, float], extra: Mapping[str, Any]) -> None:
        if self.metrics is None:
            return
        state = self.state
        where = {"type": kind, "epoch": state.epoch, "batch": state.batches_done, "batch_idx_train": state.batch_idx_train}
        self.metrics.append({**where, **values, **extra, "time": round(time.time(), 1)})
        state.metrics_lines = self.metrics.lines

    def _save_batch_checkpoint(self) -> None:
        if self.state.batch_idx_train == 0:
            return
        self.progress.pause()
        self.ckpt.save(self.exp_dir / f"checkpoint-{self.state.batch_idx_train}.pt", self.state.epoch)
        if self.is_main:
            remove_old(self.exp_dir, self.opts.keep_last_k, self.state.batch_idx_train)
        self.progress.resume()

    def _draw(self) -> None:
        self.drawn_at = time.monotonic()
        try:
            plot_losses(self.exp_dir)
        except UserError as e:  # a picture is not worth a run
            logging.warning("no picture of the losses: %s", e)

    def _end_epoch(self) -> None:
        state = self.state
        if state.validated_at != state.batch_idx_train and not self._validate():
            return
        epoch = state.epoch
        state.train_loss = dict(state.tot_loss.per_frame()).get("loss", math.inf)
        if state.train_loss < state.best_train_loss:
            state.best_train_loss, state.best_train_epoch = state.train_loss, epoch
        self._record("epoch", {"train_loss": state.train_loss, "valid_loss": state.valid_loss}, {"skipped": state.bad_batches})
        state.start_epoch(epoch + 1)
        path = self.exp_dir / f"epoch-{epoch}.pt"
        self.ckpt.save(path, epoch)
        if self.is_main:
            for best, name in ((state.best_train_epoch, "best-train-loss.pt"), (state.best_valid_epoch, "best-valid-loss.pt")):
                if best == epoch:
                    copy_checkpoint(path, self.exp_dir / name)
            if time.monotonic() - self.drawn_at > _SECONDS_BETWEEN_PLOTS:
                self._draw()
        logging.info("Epoch %d ended: train loss %.4g, validation loss %.4g", epoch, state.train_loss, state.valid_loss)


def _tracker(out: Any, batch: Optional[Dict[str, Any]]) -> MetricsTracker:
    """The losses of a rank's batch, and its size: all that the ranks' sums are needed of."""
    if batch is None:
        return MetricsTracker(loss=0.0, frames=0.0, audio=0.0, utterances=0.0)
    supervisions = batch["supervisions"]
    audio = float(supervisions["num_frames"].sum()) / _FRAMES_PER_SECOND
    return MetricsTracker(_losses(out), audio=audio, utterances=float(len(supervisions["text"])))


def _losses(out: Any) -> MetricsTracker:
    names = ["loss", *out.parts]
    values = torch.stack([out.loss.detach().float(), *(p.float() for p in out.parts.values())]).tolist()
    return MetricsTracker({"frames": float(out.frames), **dict(zip(names, values))})


def _cut_ids(batch: Dict[str, Any]) -> List[str]:
    supervisions = batch["supervisions"]
    return [cut.id for cut in supervisions["cut"]] if "cut" in supervisions else [repr(text) for text in supervisions["text"]]

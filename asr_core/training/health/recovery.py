"""Detection of training that fails, and the return to good weights with a lower learning rate.

Four things count as failure (:class:`DivergenceMonitor`): too many bad batches in a row; a loss
scale of float16 below 1e-5; one that stays below 0.01; a loss that diverges. The loss diverges if
for ``--reset-interval`` consecutive steps the loss per frame is above ``--divergence-factor`` times
(0.05 + the lowest running average of the run, over about ``--reset-interval`` steps too). The 0.05
allows losses near zero to triple, which is harmless.
"""

import contextlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Optional

import torch

from asr_core.models.averaging import average_of_range, first_not_finite, numbered
from asr_core.training.checkpoint import RunCheckpoint, read_whole
from asr_core.training.health.bad_checkpoints import Failure, set_aside
from asr_core.training.metrics import MetricsTracker
from asr_core.training.optim.shards import gathered, load_weights
from asr_core.training.options import LoopOptions
from asr_core.training.resume import furthest_checkpoint
from asr_core.training.state import TrainState
from asr_core.utils.errors import UserError

# At a loss scale of 1e-5 most gradients of float16 are zero; at 0.01 training may still recover by
# itself, since the scale is doubled every 25 steps while it is small.
_COLLAPSED_SCALE = 1.0e-5
_LOW_SCALE = 0.01

_NEARLY_ZERO_LOSS = 0.05  # per frame
_CALM_STEPS = 10  # good steps in a row after which earlier trouble is over
_SHOWN = 6  # checkpoints named in a message

# Options that are changed against a failure; a change of others may be its reason.
_REMEDIES = ("clip_grad_norm", "lr_pieces", "use_bf16", "warm_step", "warmup_batches", "warmup_start")


@dataclass(frozen=True)
class Trouble:
    """A reason why a run cannot simply continue.

    Attributes:
      what: the reason in words.
      steps: number of steps since it began; the weights before them are good.
      bad_batches: whether the reason is batches whose loss or gradient is not finite.
    """

    what: str
    steps: int
    bad_batches: bool = False


class DivergenceMonitor:
    """Examines each step for signs that training fails.

    Args:
      opts: limits.
      state: the counters, which are saved with the run.
    """

    def __init__(self, opts: LoopOptions, state: TrainState) -> None:
        self.opts = opts
        self.state = state

    def check(self, loss: float, scale: float, bad: str) -> Optional[Trouble]:
        """Return the trouble after a step, or None.

        Args:
          loss: loss per frame, the same on all ranks; it need not be finite.
          scale: the loss scale, 1 without one.
          bad: if the step was left out, what was not finite and in which cuts; otherwise empty.
        """
        state, opts = self.state, self.opts
        self._watch(loss, bad)
        if bad and state.bad_in_a_row >= opts.max_bad_batches:
            what = f"{state.bad_in_a_row} batches in a row had {bad}"
            return Trouble(what, self._steps_of_trouble(state.bad_in_a_row), bad_batches=True)
        state.low_scale_steps = state.low_scale_steps + 1 if scale < _LOW_SCALE else 0
        if scale < _COLLAPSED_SCALE:
            what = f"the loss scale of float16 fell to {scale:.1e}"
            return Trouble(what, self._steps_of_trouble(state.low_scale_steps))
        if state.low_scale_steps >= opts.reset_interval:
            what = f"the loss scale of float16 has been below {_LOW_SCALE} for {state.low_scale_steps} steps"
            return Trouble(what, self._steps_of_trouble(state.low_scale_steps))
        return self._check_loss(loss) if math.isfinite(loss) else None

    def check_weights(self, ckpt: RunCheckpoint) -> Optional[Trouble]:
        """Examine the weights and their averages, on all ranks, before they are saved."""
        name = ckpt.not_finite()
        what = f"the weights are not finite ({name})"
        return Trouble(what, self._steps_of_trouble(self.state.bad_in_a_row + 1)) if name else None

    def _watch(self, loss: float, bad: str) -> None:
        """Note when trouble began; a few good steps between bad ones do not end it."""
        state, opts = self.state, self.opts
        usual = min(state.lowest_loss, state.first_loss)
        high = opts.divergence_factor > 0 and loss > opts.divergence_factor * (usual + _NEARLY_ZERO_LOSS)
        if bad or high:
            state.trouble_from = state.trouble_from or state.batch_idx_train
            state.calm_steps = 0
            return
        if not state.good_steps:
            state.first_loss = loss
        state.calm_steps += 1
        if state.calm_steps >= _CALM_STEPS:
            state.trouble_from = 0

    def _steps_of_trouble(self, steps: int) -> int:
        """Return since how many steps there is trouble, at least ``steps``."""
        began = self.state.trouble_from
        return max(steps, self.state.batch_idx_train - began + 1 if began else 0)

    def _check_loss(self, loss: float) -> Optional[Trouble]:
        state, opts = self.state, self.opts
        state.good_steps += 1
        weight = max(1 / opts.reset_interval, 1 / state.good_steps)  # a plain mean of the first steps
        state.running_loss += weight * (loss - state.running_loss)
        if state.good_steps >= opts.reset_interval:
            state.lowest_loss = min(state.lowest_loss, state.running_loss)
        if opts.divergence_factor == 0:
            return None
        limit = opts.divergence_factor * (state.lowest_loss + _NEARLY_ZERO_LOSS)
        state.high_in_a_row = state.high_in_a_row + 1 if loss > limit else 0
        if state.high_in_a_row < opts.reset_interval:
            return None
        what = (
            f"the loss diverges: for {state.high_in_a_row} steps it was above {limit:.4g}, "
            f"and its lowest running average was {state.lowest_loss:.4g}"
        )
        return Trouble(what, self._steps_of_trouble(state.high_in_a_row))


@dataclass(frozen=True)
class GoodPoint:
    """Weights that a run can return to.

    Attributes:
      name: in words, for the log.
      weights: state dict of the model.
      optimizer: state dict of the optimizer, or None to begin with empty moments.
      batch: step after which the weights were good, or None for the running average.
      average: the running average of that time.
    """

    name: str
    weights: Mapping[str, torch.Tensor]
    optimizer: Optional[Dict[str, Any]] = None
    batch: Optional[int] = None
    average: Optional[Dict[str, torch.Tensor]] = None


@dataclass(frozen=True)
class _SavedPoint:
    """A whole checkpoint with finite weights."""

    batch: int
    path: Path
    content: Dict[str, Any]


class Recovery:
    """Ends a failing run with advice, or continues it from good weights at a lower rate.

    Args:
      ckpt: the run. Its optimizer must still have the learning rates of the options.
      opts: whether and how often to go back.
      advice: what the user can do, for messages.
      lr_option: the option that sets the learning rate, for messages.
    """

    def __init__(self, ckpt: RunCheckpoint, opts: LoopOptions, *, advice: str, lr_option: str) -> None:
        self.ckpt = ckpt
        self.parts = ckpt.parts
        self.state = ckpt.state
        self.opts = opts
        self.advice = advice
        self.lr_option = lr_option
        self.exp_dir = Path(opts.exp_dir)
        self._started_at = 0
        self._options_may_be_to_blame = False
        self._base_lrs = [group.get("base_lr") for group in self.parts.optimizer.param_groups]

    def start(self) -> None:
        """Set the options' learning rates times the factor that recoveries have left, and note
        where the run continues, and whether with options that may make it fail.
        """
        self._started_at = self.state.batch_idx_train
        self._options_may_be_to_blame = any(map(self._is_risky, self.ckpt.former))
        self._set_rates()

    def _is_risky(self, name: str) -> bool:
        """Return whether a changed option is none that is changed against a failure."""
        was, now = self.ckpt.former[name], self.ckpt.params[name]
        if name == self.lr_option.lstrip("-").replace("-", "_") and isinstance(was, (int, float)):
            return bool(now > was)
        return bool(now) if name == "use_fp16" else name not in _REMEDIES

    def _set_rates(self) -> None:
        for group, base_lr in zip(self.parts.optimizer.param_groups, self._base_lrs):
            if base_lr is not None:
                group["base_lr"] = base_lr * self.state.lr_factor
        if self.state.recoveries:
            logging.info(
                "The learning rate is %.3g times %s, after %d recoveries",
                self.state.lr_factor,
                self.lr_option,
                self.state.recoveries,
            )

    def handle(self, trouble: Trouble) -> str:
        """Go back to good weights; return their name. Called by all ranks at the same step.

        Raises:
          UserError: going back is not wanted, was done too often, or nothing good was found. The
            state is in bad-model-0.pt.
        """
        state, opts = self.state, self.opts
        if not opts.auto_recover or state.recoveries >= opts.max_recoveries:
            self._give_up(trouble, "")
        last_good = state.batch_idx_train - trouble.steps
        world = self.ckpt.world
        average = gathered(self.parts.average.state_dict(), keep=world.is_main)
        point = world.from_main(self._find(last_good, average) if world.is_main else None)
        if point is None:
            self._give_up(trouble, "; nothing good was found to go back to")
        logging.warning("%s", trouble.what)
        self._load(point)
        state.recoveries += 1
        state.lr_factor *= opts.recover_lr_factor
        state.bad_spans.append([last_good, state.batch_idx_train])
        state.bad_in_a_row = state.low_scale_steps = state.high_in_a_row = state.trouble_from = 0
        state.tot_loss = MetricsTracker()
        self._set_rates()
        logging.warning(
            "Recovery %d of %d: back to %s; the learning rate is now %.3g times %s, "
            "the data go on where they were",
            state.recoveries,
            opts.max_recoveries,
            point.name,
            state.lr_factor,
            self.lr_option,
        )
        return point.name

    def _give_up(self, trouble: Trouble, why: str) -> NoReturn:
        state, opts = self.state, self.opts
        path = self.exp_dir / "bad-model-0.pt"
        self.ckpt.save(path, state.epoch)
        tried = [f"{state.bad_batches} bad batches were skipped"] if state.bad_batches else []
        if self.parts.scaler.is_enabled():
            tried.append("a small loss scale was doubled every 25 steps")
        if state.recoveries:
            tried.append(
                f"the run went back {state.recoveries} times and had come to "
                f"{state.lr_factor:.3g} times {self.lr_option}"
            )
        advice = [self.advice]
        if opts.use_fp16:
            advice.append("--use-bf16 1 has no loss scale that could fall")
        if trouble.bad_batches:
            advice.append("look at the cuts in bad-cuts.jsonl")
        if not opts.auto_recover:
            advice.append("--auto-recover 1 goes back and on with a lower learning rate by itself")
        raise UserError(
            f"{trouble.what} at batch {state.batch_idx_train}{why}. "
            f"Tried: {'; '.join(tried) or 'nothing yet'}. "
            f"The state is in {path}; {self._keep_good(trouble)}. Before that, {'; '.join(advice)}"
        )

    def _keep_good(self, trouble: Trouble) -> str:
        """Set the checkpoints of the failure aside; return what the same command will do.

        Where trouble began right after the checkpoint that the run started from, the checkpoint is
        to blame, too, unless options were changed then that may be the reason.
        """
        state, world, text = self.state, self.ckpt.world, ""
        first = state.batch_idx_train - trouble.steps + 1
        if first <= self._started_at + _CALM_STEPS and not self._options_may_be_to_blame:
            first = min(first, self._started_at)
        if world.is_main:
            failure = Failure(max(1, first), state.batch_idx_train, state.bad_spans)
            renamed = set_aside(self.exp_dir, failure)
            if renamed:
                names = ", ".join(renamed[:_SHOWN]) + (", ..." if len(renamed) > _SHOWN else "")
                text = f"what was saved since training failed is set aside as bad-* ({names}); "
            text += self._next_start()
        return world.from_main(text)

    def _next_start(self) -> str:
        try:
            found = furthest_checkpoint(self.exp_dir)
        except UserError as e:  # one may not be read
            return f"the same command cannot go on: {e}"
        return f"the same command goes on from {found.name}" if found else "the same command starts anew"

    def _find(self, last_good: int, average: Mapping[str, torch.Tensor]) -> Optional[GoodPoint]:
        """Find the weights to go back to.

        They are the average over the steps between the last two good checkpoints, or the last good
        checkpoint, or else the running average.

        Args:
          last_good: the step before the trouble.
          average: the running average.
        """
        saved = self._good_checkpoints(last_good)
        if not saved:
            return (
                None if first_not_finite(average) else GoodPoint("the running average of all steps", average)
            )
        newest = saved[0]
        weights, name = newest.content["model"], f"{newest.path.name}, after batch {newest.batch}"
        if len(saved) > 1:
            # The earlier one may lack a running average if another program wrote it.
            with contextlib.suppress(UserError):
                weights = average_of_range(saved[1].content, newest.content)
                name = f"the average over batches {saved[1].batch} to {newest.batch}"
        return GoodPoint(
            name,
            weights,
            optimizer=newest.content.get("optimizer"),
            batch=newest.batch,
            average=newest.content.get("model_avg"),
        )

    def _good_checkpoints(self, last_good: int) -> List[_SavedPoint]:
        """Read up to two good checkpoints from before the trouble, the newest step first.

        Their running averages differ, so that an average between them exists.
        """
        paths = [path for number, path in numbered(self.exp_dir, "checkpoint") if number <= last_good]
        paths += [path for _, path in numbered(self.exp_dir, "epoch")]  # their steps are not in the name
        found: List[_SavedPoint] = []
        for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns, reverse=True):
            if len(found) == 2:
                break
            try:
                content = read_whole(path)
            except UserError as e:
                logging.warning("%s", e)
                continue
            batch = int(content.get("batch_idx_train", 0))
            spoilt = any(first < batch < last for first, last in self.state.bad_spans)
            snapshots = batch // self.opts.average_period
            same = any(snapshots == point.batch // self.opts.average_period for point in found)
            finite = not any(first_not_finite(content.get(part) or {}) for part in ("model", "model_avg"))
            if 0 < batch <= last_good and not spoilt and not same and finite:
                found.append(_SavedPoint(batch, path, content))
        return sorted(found, key=lambda point: -point.batch)

    def _load(self, point: GoodPoint) -> None:
        parts = self.parts
        load_weights(parts.model, point.weights)
        empty = {**parts.optimizer.state_dict(), "state": {}}
        parts.shards.load_optimizer(parts.optimizer, point.optimizer or empty)
        if point.batch is not None and point.average is not None:
            parts.average.continue_from(point.average, point.batch, self.state.batch_idx_train)
        if parts.ema:
            parts.ema.restart()
        if parts.scaler.is_enabled():
            parts.scaler.update(1.0)

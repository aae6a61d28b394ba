"""Training that does not go on by itself: what counts as such, and how a run goes back and continues more slowly.

Four things do (``DivergenceMonitor``): too many bad batches in a row; a loss scale of float16 below 1e-5; one that stays below 0.01; a loss that
diverges. The last means that for ``--reset-interval`` steps on end the loss per frame was above ``--divergence-factor`` times
(0.05 + the lowest running average of the run, over about ``--reset-interval`` steps too). The 0.05 is there because losses that are
nearly zero may well grow threefold without harm.
"""

import contextlib
import logging
import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch

from asr_core.models.averaging import average_of_range, numbered
from asr_core.training.checkpoint import RunCheckpoint, read_whole
from asr_core.training.options import LoopOptions
from asr_core.training.state import TrainState
from asr_core.utils.errors import UserError

_COLLAPSED, _LOW = 1.0e-5, 0.01  # loss scales
_NEARLY_ZERO = 0.05  # loss per frame


class Trouble(NamedTuple):
    """Why a run cannot go on as it is.

    Attributes:
      what: in words.
      steps: for so many steps it has lasted; what was there before is good.
    """

    what: str
    steps: int


class DivergenceMonitor:
    """Looks at each step for signs that training fails.

    Args:
      opts: limits.
      state: the counters, which are saved with the run.
    """

    def __init__(self, opts: LoopOptions, state: TrainState) -> None:
        self.opts = opts
        self.state = state

    def look(self, loss: float, scale: float, bad: str) -> Optional[Trouble]:
        """What is wrong after a step, if anything is.

        Args:
          loss: per frame; not finite or not, but the same on all ranks.
          scale: the loss scale, 1 without.
          bad: what was not finite and of which cuts, if the step was left out, or else empty.
        """
        state, opts = self.state, self.opts
        if bad and state.bad_in_a_row >= opts.max_bad_batches:
            return Trouble(f"{state.bad_in_a_row} batches in a row had {bad}", state.bad_in_a_row)
        state.low_scale_steps = state.low_scale_steps + 1 if scale < _LOW else 0
        if scale < _COLLAPSED:
            return Trouble(f"the loss scale of float16 fell to {scale:.1e}", state.low_scale_steps)
        if state.low_scale_steps >= opts.reset_interval:
            return Trouble(
                f"the loss scale of float16 has been below {_LOW} for {state.low_scale_steps} steps",
                state.low_scale_steps,
            )
        return self._diverges(loss) if math.isfinite(loss) else None

    def _diverges(self, loss: float) -> Optional[Trouble]:
        state, opts = self.state, self.opts
        state.good_steps += 1
        weight = max(1 / opts.reset_interval, 1 / state.good_steps)
        state.running_loss += weight * (loss - state.running_loss)
        if state.good_steps >= opts.reset_interval:
            state.lowest_loss = min(state.lowest_loss, state.running_loss)
        if opts.divergence_factor == 0:
            return None
        limit = opts.divergence_factor * (state.lowest_loss + _NEARLY_ZERO)
        state.high_in_a_row = state.high_in_a_row + 1 if loss > limit else 0
        if state.high_in_a_row < opts.reset_interval:
            return None
        return Trouble(
            f"the loss diverges: for {state.high_in_a_row} steps it was above {limit:.4g}, "
            f"and its lowest running average was {state.lowest_loss:.4g}",
            state.high_in_a_row,
        )


class GoodPoint(NamedTuple):
    """What a run goes back to.

    Attributes:
      weights: state dict.
      optimizer: state dict, or None to begin with empty moments.
      name: for the log.
      batch: steps after which the weights were good; None: those of the running average at present.
      average: the running average of that time.
    """

    weights: Dict[str, torch.Tensor]
    optimizer: Optional[Dict[str, Any]]
    name: str
    batch: Optional[int] = None
    average: Optional[Dict[str, torch.Tensor]] = None


class Recovery:
    """Ends a run that fails with advice, or lets it go back and continue with a lower learning rate.

    Args:
      run: what a checkpoint holds; to be made when the optimizer still has the learning rates of the options.
      opts: whether and how often to go back.
      advice: what the user can do, for messages.
      lr_option: the option that sets the learning rate, for messages.
    """

    def __init__(self, run: RunCheckpoint, opts: LoopOptions, advice: str, lr_option: str) -> None:
        self.run = run
        self.opts = opts
        self.advice = advice
        self.lr_option = lr_option
        self.exp_dir = Path(opts.exp_dir)
        self._base_lrs = [group.get("base_lr") for group in run.optimizer.param_groups]

    def set_rates(self) -> None:
        """Give the optimizer the options' learning rates times the factor that recoveries have left."""
        for group, base_lr in zip(self.run.optimizer.param_groups, self._base_lrs):
            if base_lr is not None:
                group["base_lr"] = base_lr * self.run.state.lr_factor
        state = self.run.state
        if state.recoveries:
            logging.info(
                "The learning rate is %.3g times %s, after %d recoveries",
                state.lr_factor,
                self.lr_option,
                state.recoveries,
            )

    def handle(self, trouble: Trouble) -> str:
        """Go back; returns to what. Called by all ranks at the same step.

        Raises:
          UserError: it is not wanted, was done too often, or there is nothing to go back to; bad-model-0.pt holds the state.
        """
        state, opts = self.run.state, self.opts
        if not opts.auto_recover or state.recoveries >= opts.max_recoveries:
            self._give_up(trouble, "")
        last_good = state.batch_idx_train - trouble.steps
        point = self.run.world.from_main(self._find(last_good) if self.run.world.is_main else None)
        if point is None:
            self._give_up(trouble, "; nothing good was found to go back to")
        logging.warning("%s", trouble.what)
        self._load(point)
        state.recoveries += 1
        state.lr_factor *= opts.recover_lr_factor
        state.bad_spans.append([last_good, state.batch_idx_train])
        state.bad_in_a_row = state.low_scale_steps = state.high_in_a_row = 0
        state.tot_loss = type(state.tot_loss)()
        self.set_rates()
        logging.warning(
            "Recovery %d of %d: back to %s; the learning rate is now %.3g times %s, the data go on where they were",
            state.recoveries, opts.max_recoveries, point.name, state.lr_factor, self.lr_option,
        )  # fmt: skip
        return point.name

    def _give_up(self, trouble: Trouble, why: str) -> None:
        state, opts = self.run.state, self.opts
        path = self.exp_dir / "bad-model-0.pt"
        self.run.save(path, state.epoch)
        tried = [f"{state.bad_batches} bad batches were skipped"] if state.bad_batches else []
        if self.run.scaler.is_enabled():
            tried.append("a small loss scale was doubled every 25 steps")
        if state.recoveries:
            tried.append(
                f"the run went back {state.recoveries} times and had come to {state.lr_factor:.3g} times {self.lr_option}"
            )
        advice = [self.advice]
        if opts.use_fp16:
            advice.append("--use-bf16 1 has no loss scale that could fall")
        if "batches in a row" in trouble.what:
            advice.append("look at the cuts in bad-cuts.jsonl")
        if not opts.auto_recover:
            advice.append("--auto-recover 1 goes back and on with a lower learning rate by itself")
        raise UserError(
            f"{trouble.what} at batch {state.batch_idx_train}{why}. Tried: {'; '.join(tried) or 'nothing yet'}. "
            f"The state is in {path}; the same command goes on from the last regular checkpoint. Before that, {'; '.join(advice)}"
        )

    # -- going back ------------------------------------------------------------------------------------------------------

    def _find(self, last_good: int) -> Optional[GoodPoint]:
        """The average over the steps between the last two good checkpoints; or the last good one; or the running average."""
        newest = self._good_checkpoints(last_good)
        if newest:
            (batch, path, content), earlier = newest[0], newest[1:]
            weights, what = content["model"], f"{path.name}, after batch {batch}"
            for start, _, before in earlier:
                with contextlib.suppress(
                    UserError
                ):  # one of them, perhaps another program's, has no running average
                    weights, what = (
                        average_of_range(before, content),
                        f"the average over batches {start} to {batch}",
                    )
            return GoodPoint(weights, content.get("optimizer"), what, batch, content.get("model_avg"))
        weights = self.run.average.state_dict()
        return GoodPoint(weights, None, "the running average of all steps") if _finite(weights) else None

    def _good_checkpoints(self, last_good: int) -> List[Tuple[int, Path, Dict[str, Any]]]:
        """Up to two whole and finite checkpoints from before the trouble, of different running averages; the newest first."""
        paths = [path for kind in ("checkpoint", "epoch") for _, path in numbered(self.exp_dir, kind)]
        found: List[Tuple[int, Path, Dict[str, Any]]] = []
        paths = [
            p for p in paths if not p.name.startswith("checkpoint-") or int(p.stem.split("-")[1]) <= last_good
        ]
        for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns, reverse=True):
            if len(found) == 2:
                break
            try:
                content = read_whole(path)
            except UserError as e:
                logging.warning("%s", e)
                continue
            batch = int(content.get("batch_idx_train", 0))
            spoilt = any(first < batch < last for first, last in self.run.state.bad_spans)
            same = any(
                batch // self.opts.average_period == n // self.opts.average_period for n, _, _ in found
            )
            if 0 < batch <= last_good and not spoilt and not same and _finite(content["model"]):
                found.append((batch, path, content))
        return sorted(found, key=lambda entry: -entry[0])

    def _load(self, point: GoodPoint) -> None:
        run = self.run
        run.model.load_state_dict(point.weights)
        empty = {**run.optimizer.state_dict(), "state": {}}
        run.optimizer.load_state_dict(point.optimizer or empty)
        if point.batch is not None and point.average is not None:
            run.average.continue_from(point.average, point.batch, run.state.batch_idx_train)
        if run.ema:
            run.ema.restart()
        if run.scaler.is_enabled():
            run.scaler.update(1.0)


def _finite(weights: Dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(w).all()) for w in weights.values() if w.is_floating_point())

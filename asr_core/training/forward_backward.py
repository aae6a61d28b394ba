"""The forward and backward passes of one step, over the batches of all processes."""

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.training.batch_loss import BatchLoss
from asr_core.training.distributed.fsdp import DividedGradients, FsdpShards
from asr_core.training.distributed.gradients import Gradients, gradients_of
from asr_core.training.metrics import MetricsTracker, sum_over_ranks, sums_of
from asr_core.training.setup import TrainingRun
from asr_core.training.task import Batch

Suspects = List[Dict[str, object]]  # cuts of this rank with their ``value``


@dataclass(frozen=True)
class Step:
    """This rank's contribution to one step of the optimizer.

    Attributes:
      batches: its ``--accum-grad`` batches; None where it has none and other ranks do.
      batches_done: batches of the epoch used after the step, by all ranks together.
    """

    batches: List[Optional[Batch]]
    batches_done: int


class ForwardBackward:
    """Losses and gradients of a step.

    Args:
      run: the parts of the run; its model's weights are those of the first step.

    Raises:
      UserError: an option makes no sense for this number of processes.
      PeerLost: another process does not answer.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.gradients = _gradients(run)

    def __call__(self, batches: Sequence[Optional[Batch]]) -> "StepLosses":
        """Compute the gradients, summed over the step's batches of all ranks.

        Nothing waits for the device. If a loss is not finite on some rank, neither are the
        gradients, on any.

        Args:
          batches: this rank's batches, None where it has none.
        """
        run, outs = self.run, []
        for number, batch in enumerate(batches, start=1):
            with run.autocast(), run.world.shared_statistics(run.parts.model, batch is not None):
                out = self.gradients.loss_of(batch, self._loss)
            self.gradients.add(None if out is None else _guarded(out.loss), last=number == len(batches))
            outs.append(None if out is None else out._replace(loss=out.loss.detach()))
        return StepLosses(run, batches, outs)

    def _loss(self, batch: Batch) -> BatchLoss:
        return self.run.task.compute_loss(self.run.parts.model, batch, self.run.state.batch_idx_train)


def _gradients(run: TrainingRun) -> Gradients:
    shards, scaler = run.parts.shards, run.parts.scaler
    if isinstance(shards, FsdpShards):
        return DividedGradients(shards, scaler, run.world)
    return gradients_of(run.parts.model, scaler, run.world, run.opts.ddp_compression)


def _guarded(loss: Tensor) -> Tensor:
    """Return a loss whose gradient is NaN for all that it depends on, unless it is finite.

    The sum over all ranks tells the others; a loss of infinity alone may have finite gradients.
    """
    factor = torch.ones_like(loss, requires_grad=False)
    return loss * factor.masked_fill_(~loss.detach().isfinite(), math.nan)


class StepLosses:
    """The losses of a step's batches, at which the device may still be at work.

    Args:
      run: the parts of the run.
      batches: this rank's batches, None where it has none.
      outs: their losses.
    """

    def __init__(
        self, run: TrainingRun, batches: Sequence[Optional[Batch]], outs: Sequence[Optional[BatchLoss]]
    ) -> None:
        self.run = run
        self.batches = batches
        self.outs = outs
        self._sizes = [None if batch is None else run.data.size_of(batch) for batch in batches]

    def sizes(self) -> MetricsTracker:
        """Return the numbers of ``utterances`` and ``frames`` of all ranks, which all call this."""
        mine = MetricsTracker(
            utterances=sum(size.items for size in self._sizes if size),
            frames=sum(out.frames for out in self.outs if out),
        )
        return sum_over_ranks(self.run.world.gather(mine))

    def settle(self) -> Tuple[MetricsTracker, Optional[Suspects]]:
        """Wait for the losses; all ranks call this.

        Returns:
          The sums of losses and sizes over all ranks; and None, or if a loss is not finite on some
          rank, this rank's cuts that may be the cause.
        """
        mine = [sums_of(out, size) for out, size in zip(self.outs, self._sizes)]
        by_batch = zip(*self.run.world.gather(mine))
        info = sum_over_ranks(part for ranks in by_batch for part in ranks)
        if math.isfinite(info["loss"]):
            return info, None
        bad = [batch for batch, sums in zip(self.batches, mine) if not math.isfinite(sums["loss"])]
        with self.run.parts.shards.whole():
            return info, [cut for batch in bad if batch is not None for cut in self._culprits(batch)]

    def _culprits(self, batch: Batch) -> Suspects:
        """Return the cuts whose own loss is not finite, or all if every loss is finite."""
        run = self.run
        with torch.no_grad(), run.autocast():
            out = run.task.compute_loss(run.parts.model, batch, run.state.batch_idx_train, reduction="none")
        losses = out.loss.tolist()
        cuts = [{**cut, "value": loss} for cut, loss in zip(run.data.describe(batch), losses)]
        return [cut for cut, loss in zip(cuts, losses) if not math.isfinite(loss)] or cuts

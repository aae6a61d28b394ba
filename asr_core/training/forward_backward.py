"""The forward and backward passes of one step, over the batches of all processes."""

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import torch

from asr_core.training.distributed.gradients import gradients_of
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
        self.gradients = gradients_of(run.parts.model, run.parts.scaler, run.world, run.opts.ddp_compression)

    def __call__(self, batches: Sequence[Optional[Batch]]) -> Tuple[MetricsTracker, Optional[Suspects]]:
        """Compute the gradients, summed over the step's batches of all ranks.

        Args:
          batches: this rank's batches, None where it has none.

        Returns:
          The sums of losses and sizes over all ranks; and None, or if a loss is not finite on some
          rank, and there are no gradients therefore, this rank's cuts that may be the cause.
        """
        run, info = self.run, MetricsTracker()
        for number, batch in enumerate(batches, start=1):
            out = None
            with run.autocast(), run.world.shared_statistics(run.parts.model, batch is not None):
                if batch is not None:
                    out = run.task.compute_loss(run.parts.model, batch, run.state.batch_idx_train)
            mine = sums_of(out, None if batch is None else run.data.size_of(batch))
            info = sum_over_ranks([info, *run.world.gather(mine)])
            if not math.isfinite(info["loss"]):  # the same on all ranks, before any of them goes backward
                return info, [] if batch is None or math.isfinite(mine["loss"]) else self._culprits(batch)
            self.gradients.add(None if out is None else out.loss, last=number == len(batches))
        return info, None

    def _culprits(self, batch: Batch) -> Suspects:
        """Return the cuts whose own loss is not finite, or all if every loss is finite."""
        run = self.run
        with torch.no_grad(), run.autocast():
            out = run.task.compute_loss(run.parts.model, batch, run.state.batch_idx_train, reduction="none")
        losses = out.loss.tolist()
        cuts = [{**cut, "value": loss} for cut, loss in zip(run.data.describe(batch), losses)]
        return [cut for cut, loss in zip(cuts, losses) if not math.isfinite(loss)] or cuts

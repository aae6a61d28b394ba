"""Trial of the largest batches before training.

Memory so runs out in the first minute of a run rather than in its tenth hour.
"""

import logging
import time
from typing import Callable, Sequence

import torch
from torch import nn

from asr_core.nn.scaling import load_training_state, training_state
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.health.bad_batches import is_out_of_memory
from asr_core.training.state import random_states, set_random_states
from asr_core.training.task import Batch, MemoryTrials, Trial
from asr_core.utils.errors import UserError


class OomScan:
    """Runs forward and backward on some batches and leaves everything as it was.

    Args:
      model: the model to be trained.
      loss_of: batch -> the loss to be minimised.
      trials: loads the batches, and knows what would fit.
      device: device of the model.
      copies: how much memory training needs besides, in copies of the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Batch], torch.Tensor],
        trials: MemoryTrials,
        device: torch.device,
        copies: int = 2,
    ) -> None:
        self.model = model
        self.loss_of = loss_of
        self.trials = trials
        self.device = device
        self.copies = copies

    def run(self, largest: Sequence[Trial]) -> None:
        """Try the largest batches, which :meth:`MemoryTrials.find` found.

        Raises:
          UserError: one of them does not fit into memory; names it and what would fit.
        """
        began = time.monotonic()
        self.model.train()
        random_before, module_before = random_states(), training_state(self.model)
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        weights = [p for p in self.model.parameters() if p.requires_grad]
        reserve = [torch.empty_like(p) for p in weights for _ in range(self.copies)]
        try:
            for trial in largest:
                if not self._fits(trial, len(trial.items)):
                    raise UserError(f"out of memory on {self.trials.advice(trial, self._num_fit(trial))}")
        finally:
            del reserve
            set_random_states(random_before)
            load_training_state(self.model, module_before)
            with torch.no_grad():
                for name, b in self.model.named_buffers():
                    b.copy_(buffers[name])
        logging.info(
            "The %d largest kinds of batches fit into memory (%.1f s)",
            len(largest),
            time.monotonic() - began,
        )

    def _fits(self, trial: Trial, num_items: int) -> bool:
        try:
            batch = self.trials.load(trial, num_items)
            if batch is not None:
                self.loss_of(batch).backward()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            return True
        except Exception as e:
            if not is_out_of_memory(e):
                raise
            return False
        finally:
            self.model.zero_grad(set_to_none=True)

    def _num_fit(self, trial: Trial) -> int:
        """Return how many items of a batch that does not fit as a whole do, the largest first."""
        fits, fails = 0, len(trial.items)
        while fails - fits > 1:  # bisection
            middle = (fits + fails) // 2
            if self._fits(trial, middle):
                fits = middle
            else:
                fails = middle
        return fits


def scan_for_oom(
    trials: MemoryTrials,
    model: nn.Module,
    loss_of: Callable[[Batch], torch.Tensor],
    device: torch.device,
    world: SingleProcess,
) -> None:
    """Find the largest batches of the first epoch and try them; all ranks try the same.

    Args:
      trials: finds and loads the batches, and knows what would fit.
      model: the model to be trained.
      loss_of: batch -> the loss to be minimised.
      device: device of the model.
      world: the processes that train together.

    Raises:
      UserError: memory does not suffice.
    """
    began = time.monotonic()
    largest = world.from_main(trials.find() if world.is_main else [])
    logging.info("Looked for the largest of the batches in %.1f s", time.monotonic() - began)
    # The optimizer's two moments, which do not exist before the first step, and with several
    # processes the buckets in which gradients travel.
    copies = 2 if world.size == 1 else 3
    OomScan(model, loss_of, trials, device, copies).run(largest)

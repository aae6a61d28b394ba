"""Position of a training run apart from its tensors, and the states of random sources."""

import dataclasses
import math
import random
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping

import numpy as np
import torch

from asr_core.training.metrics import MetricsTracker

_FORMER_NAMES = {"alike": "bucket_run"}  # of fields in checkpoints of versions up to 0.1

# Factors that keep the seeds of ranks and of restarts apart: primes far larger than the number of
# epochs, and of different size, so that sums of their multiples do not coincide in practice.
_SEED_OF_RANK = 1_000_003
_SEED_OF_RESTART = 7919


@dataclass
class TrainState:
    """Counters of a run; a checkpoint holds all of them.

    Attributes:
      epoch: the epoch under way, from 1.
      batches_done: batches of this epoch that were used, by all ranks together.
      batch_idx_train: steps since the start of training.
      bucket_run: number of consecutive batches of this epoch that have similar durations, which is
        the number of processes that began it.
      count_rate: reference batches (see ``--ref-duration``) per step.
      count_from: the step since which ``count_rate`` holds.
      count_before: reference batches up to that step.
      tot_loss: decaying sums of losses in this epoch.
      epoch_audio: seconds of audio, or other units of size, used in this epoch.
      validation_due: a validation at this step was interrupted and must be repeated.
      validated_at: the step after which the last validation took place.
      valid_loss: loss per frame of that validation.
      bad_in_a_row: consecutive skipped steps whose loss or gradient was not finite.
      bad_batches: all of these steps.
      overflows: steps left out because gradients overflowed float16 at a loss scale above 1.
      low_scale_steps: consecutive steps with a low loss scale.
      high_in_a_row: consecutive steps with a loss far above its lowest average.
      good_steps: steps with a finite loss.
      first_loss: loss per frame of the first of them.
      trouble_from: the first bad step, or step with a high loss, since the last longer run of good
        ones; 0 if all is well.
      calm_steps: good steps in a row.
      running_loss: average of their recent losses per frame.
      lowest_loss: lowest value of that average.
      lr_factor: factor on the learning rate that recoveries have left.
      recoveries: number of recoveries.
      bad_spans: first and last step of each failure; checkpoints between them are not good.
      metrics_lines: lines of metrics.jsonl that belong to the run so far.
      bad_cuts_lines: lines of bad-cuts.jsonl that belong to the run so far.
      train_loss: training loss per frame of the last whole epoch.
      best_train_loss: lowest training loss per frame of an epoch.
      best_valid_loss: lowest validation loss per frame.
      best_train_epoch: the epoch of ``best_train_loss``, or -1.
      best_valid_epoch: the epoch of ``best_valid_loss``, or -1.
    """

    epoch: int = 1
    batches_done: int = 0
    bucket_run: int = 1
    batch_idx_train: int = 0
    count_rate: float = 0.0
    count_from: int = 0
    count_before: float = 0.0
    tot_loss: MetricsTracker = field(default_factory=MetricsTracker)
    epoch_audio: float = 0.0
    validation_due: bool = False
    validated_at: int = -1
    valid_loss: float = math.inf
    bad_in_a_row: int = 0
    bad_batches: int = 0
    overflows: int = 0
    low_scale_steps: int = 0
    high_in_a_row: int = 0
    good_steps: int = 0
    first_loss: float = math.inf
    trouble_from: int = 0
    calm_steps: int = 0
    running_loss: float = 0.0
    lowest_loss: float = math.inf
    lr_factor: float = 1.0
    recoveries: int = 0
    bad_spans: List[List[int]] = field(default_factory=list)
    metrics_lines: int = 0
    bad_cuts_lines: int = 0
    train_loss: float = math.inf
    best_train_loss: float = math.inf
    best_valid_loss: float = math.inf
    best_train_epoch: int = -1
    best_valid_epoch: int = -1

    def start_epoch(self, epoch: int) -> None:
        """Set the counters of an epoch to its start."""
        self.epoch = epoch
        self.batches_done = 0
        self.epoch_audio = 0.0
        self.tot_loss = MetricsTracker()

    def count(self) -> float:
        """Return the number of reference batches so far."""
        return self.count_before + (self.batch_idx_train - self.count_from) * self.count_rate

    def count_at(self, rate: float) -> None:
        """Count ``rate`` reference batches per step from here on; the count so far remains."""
        if self.count_rate not in (0.0, rate):
            self.count_before, self.count_from = self.count(), self.batch_idx_train
        self.count_rate = rate

    def as_dict(self) -> Dict[str, Any]:
        """Return all fields as plain values, for a checkpoint."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "tot_loss": dict(self.tot_loss)}

    def load(self, values: Mapping[str, Any]) -> None:
        """Load what :meth:`as_dict` returned, under present or former names of the fields.

        Fields that are missing get their initial values.
        """
        renamed = {_FORMER_NAMES.get(name, name): value for name, value in values.items()}
        loaded = TrainState(**{**renamed, "tot_loss": MetricsTracker(values.get("tot_loss", {}))})
        for f in dataclasses.fields(self):
            setattr(self, f.name, getattr(loaded, f.name))


def seed_everything(seed: int) -> None:
    """Seed the random sources of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_of_epoch(seed: int, epoch: int, rank: int = 0, batch_idx_train: int = 0) -> int:
    """Return the seed of dropout and the like for one rank in an epoch.

    Args:
      seed: the seed of the run.
      epoch: the epoch, from 1.
      rank: number of the process.
      batch_idx_train: the step after which the epoch continues, if its random states were lost.
    """
    return seed + epoch - 1 + _SEED_OF_RANK * rank + _SEED_OF_RESTART * batch_idx_train


def random_states() -> Dict[str, Any]:
    """Return the states of all random sources, as values that any loader of checkpoints reads.

    Of the GPUs, only this process' own is included.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, [int(k) for k in keys], *rest],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore the states that :func:`random_states` returned; the GPU's only if there is one."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0].cpu())

"""Where a run stands, apart from its tensors; random states."""

import dataclasses
import math
import random
from dataclasses import dataclass, field
from typing import Any, Dict, List

import numpy as np
import torch

from asr_core.training.metrics import MetricsTracker

_FORMER_NAMES = {"alike": "bucket_run"}  # in checkpoints of versions up to 0.1


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
      epoch: the epoch under way, from 1.
      batches_done: how many batches of it were used, by all ranks together.
      batch_idx_train: steps since the start of training.
      bucket_run: so many batches in a row of this epoch have similar durations; as many processes began it.
      count_rate, count_from, count_before: reference batches (see ``--ref-duration``) in a step; from which step on; how many before.
      tot_loss: decayed sums of losses in this epoch.
      epoch_audio: seconds of audio used in this epoch.
      validation_due: a validation at this batch was interrupted and is still to be done.
      validated_at, valid_loss: the last validation: after which batch, and its loss per frame.
      bad_in_a_row, bad_batches: skipped batches whose loss or gradient was not finite.
      overflows: steps left out because gradients overflowed float16 while the loss scale was above 1.
      low_scale_steps, high_in_a_row: steps on end with a low loss scale, and with a loss far above its lowest average.
      good_steps, running_loss, lowest_loss: steps with a finite loss; the average of its recent ones per frame; the lowest of that.
      lr_factor, recoveries, bad_spans: factor on the learning rate that is left after so many recoveries; the [first, last] batches
        of the troubles, between which checkpoints are not good.
      metrics_lines, bad_cuts_lines: lines of metrics.jsonl and bad-cuts.jsonl that belong to the run so far.
      best_*: lowest losses per frame, and their epochs.
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
        self.epoch, self.batches_done, self.epoch_audio, self.tot_loss = epoch, 0, 0.0, MetricsTracker()

    def count(self) -> float:
        """Reference batches so far."""
        return self.count_before + (self.batch_idx_train - self.count_from) * self.count_rate

    def count_at(self, rate: float) -> None:
        """From here on a step is ``rate`` reference batches; those so far remain what they were."""
        if self.count_rate not in (0.0, rate):
            self.count_before, self.count_from = self.count(), self.batch_idx_train
        self.count_rate = rate

    def as_dict(self) -> Dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {
            "tot_loss": dict(self.tot_loss)
        }

    @classmethod
    def from_dict(cls, values: Dict[str, Any]) -> "TrainState":
        """The inverse of :meth:`as_dict`; fields are found by their former names too."""
        renamed = {_FORMER_NAMES.get(name, name): value for name, value in values.items()}
        return cls(**{**renamed, "tot_loss": MetricsTracker(values["tot_loss"])})


def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's random sources."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_of_epoch(seed: int, epoch: int, rank: int = 0, batch_idx_train: int = 0) -> int:
    """The seed of dropout and the like for one rank in an epoch, or in the rest of one that goes on after ``batch_idx_train``."""
    return seed + epoch - 1 + 1_000_003 * rank + 7919 * batch_idx_train


def random_states() -> Dict[str, Any]:
    """The states of all random sources (of GPUs: this process' own), as values that any checkpoint loader reads."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, [int(k) for k in keys], *rest],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_states(states: Dict[str, Any]) -> None:
    """Restore what :func:`random_states` gave; the GPU's only where there is one."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0].cpu())

"""The interface between the training loop and the task that it trains.

The loop knows nothing of speech. It asks a :class:`Task` for a model, an optimizer and a loss, and
the task's :class:`TaskData` for batches. Only the task looks into a batch, with one exception: from
``batch_idx``, the batch's position in the epoch, the loop learns that batches before it were left
out because nothing of them could be read.

:class:`~asr_core.training.asr_recipe.AsrRecipe` trains speech recognition,
:class:`~asr_core.training.lm_recipe.LmRecipe` language models.
"""

import abc
from typing import Any, Collection, Dict, Iterable, List, Mapping, NamedTuple, Optional, Protocol, Sequence

import torch
from torch import nn

from asr_core.training.batch_loss import BatchLoss, BatchSize
from asr_core.training.optim.stepper import GradientScaling
from asr_core.training.optim.weight_noise import WeightNoise
from asr_core.training.schedule import LRScheduler

Batch = Mapping[str, Any]


class Trial(NamedTuple):
    """A batch to try before training, because it needs as much memory as any.

    Attributes:
      reason: what makes it large, for messages, e.g. ``"the longest utterance"``.
      position: its position in the epoch.
      items: references to its items, the largest first; they can be pickled.
    """

    reason: str
    position: int
    items: Sequence[object]


class MemoryTrials(Protocol):
    """The largest batches of an epoch."""

    def find(self) -> List[Trial]:
        """Find the largest batches of the epoch; called on rank 0 alone."""

    def load(self, trial: Trial, num_items: int) -> Optional[Batch]:
        """Load the batch of the first ``num_items`` items; None if none of them can be used."""

    def advice(self, trial: Trial, num_fit: int) -> str:
        """Return which options would make ``trial`` fit, if ``num_fit`` of its items do."""


class TaskData(Protocol):
    """The batches of a run, and what the loop needs to know about them."""

    @property
    def num_dropped(self) -> int:
        """Number of items that were left out so far, for the log."""

    @property
    def valid_sets(self) -> Sequence[str]:
        """The names of the validation sets; a single one may be called ``""``."""

    def train_batches(self, epoch: int, skip_batches: int = 0, bucket_run: int = 0) -> Iterable[Batch]:
        """Return this rank's batches of one epoch of training.

        Args:
          epoch: number of the epoch, from 1; each has its own order.
          skip_batches: number of batches at the start of the epoch to skip, counted over all ranks.
          bucket_run: how many batches in a row are of similar size, because ranks work on them at
            the same time; 0: as many as there are ranks. Another number gives another order.
        """

    def valid_batches(self, name: str) -> Iterable[Batch]:
        """Return this rank's batches of one validation set, always the same."""

    def size_of(self, batch: Batch) -> BatchSize:
        """Return the size of a batch."""

    def describe(self, batch: Batch) -> List[Dict[str, object]]:
        """Describe each item of a batch by ``id`` and whatever else helps to find it.

        The order is that of the losses with ``reduction="none"``.
        """

    def shape_of(self, batch: Batch) -> List[int]:
        """Return the shape of a batch's inputs, for messages."""

    def report(self) -> float:
        """Log the sizes of all sets. Called on rank 0 alone.

        Returns:
          The size of an epoch in the task's unit.

        Raises:
          UserError: there is nothing to train on.
        """

    def memory_trials(self, device: torch.device) -> Optional[MemoryTrials]:
        """Return the largest batches, to try on ``device`` before training; None to try none."""


class Measurement(NamedTuple):
    """A metric's value at the end of an epoch.

    Attributes:
      kind: the record's ``type`` in metrics.jsonl, e.g. ``"wer"``.
      text: for the log.
      record: for metrics.jsonl.
      scalars: for TensorBoard.
    """

    kind: str
    text: str
    record: Mapping[str, float]
    scalars: Mapping[str, float]


class EpochMetric(Protocol):
    """A metric that is measured on validation data at the end of some epochs."""

    def due(self, epoch: int) -> bool:
        """Return whether to measure at the end of ``epoch``."""

    def count(self, model: nn.Module, data: TaskData) -> Sequence[float]:
        """Return the counts of this rank's share, which the loop sums over the ranks.

        Args:
          model: in evaluation mode.
          data: with the validation batches.
        """

    def result(self, counts: Sequence[float]) -> Measurement:
        """Compute the metric from the sums of :meth:`count`."""


class Task(abc.ABC):
    """A training task: model, data, loss, optimizer, and advice for the user.

    Attributes:
      params: all options, as checkpoints record them.
      unit: what the sizes of batches are counted in, for the log: ``"s"`` (of audio), ``"tokens"``.
      rate_name: name of the scalar with units per second.
      lr_option: the option that sets the learning rate, for messages.
      batch_count_offset: added to the counter that drives dropout and other schedules of modules.
      ema_decay: decay per step of the exponential average of the weights; 0 for no average.
      valid_with_ema: validate with that average.
    """

    unit: str = "s"
    rate_name: str = "audio_seconds_per_second"
    lr_option: str = "--base-lr"
    batch_count_offset: float = 0.0
    ema_decay: float = 0.0
    valid_with_ema: bool = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    @property
    @abc.abstractmethod
    def reference_batches(self) -> float:
        """The size of a batch of one rank, in reference batches.

        Schedules of modules (dropout, the limits of balancers) are tuned for a certain size of
        batches. They count in reference batches of that size, so that a schedule covers the same
        amount of data whatever the actual size. With 0 they count steps of any size.
        """

    @abc.abstractmethod
    def build_model(self) -> nn.Module:
        """Build the model, on the CPU."""

    @abc.abstractmethod
    def build_data(self) -> TaskData:
        """Open training and validation data."""

    @abc.abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer."""

    @abc.abstractmethod
    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Build the learning-rate schedule."""

    @abc.abstractmethod
    def compute_loss(
        self, model: nn.Module, batch: Batch, batch_idx_train: int, reduction: str = "sum"
    ) -> BatchLoss:
        """Compute the loss of one batch, summed over its N items.

        Args:
          model: in training or evaluation mode.
          batch: a batch of :class:`TaskData`.
          batch_idx_train: batches since the start of training.
          reduction: ``"sum"``, or ``"none"`` for one loss per item.
        """

    @abc.abstractmethod
    def smaller_batches(self) -> str:
        """Return advice for running out of memory, for messages."""

    @abc.abstractmethod
    def slower_learning(self) -> str:
        """Return advice for training that diverges, for messages."""

    def gradient_scaling(self) -> GradientScaling:
        """Return how gradients are scaled before the optimizer's step; by default not at all."""
        return GradientScaling()

    def weight_noise(self, model: nn.Module) -> WeightNoise:
        """Build the variational noise on modules of the model; by default none."""
        return WeightNoise(model, {}, start=0.0, seed=0)

    def shaping_options(self) -> Collection[str]:
        """Return the names of the options that shape the model's parameters; by default none."""
        return ()

    def inputs(self) -> Dict[str, str]:
        """Return digests of what all processes must read alike, by name; by default none."""
        return {}

    def build_metric(self) -> Optional[EpochMetric]:
        """Build the metric that is measured at the end of epochs; by default none."""
        return None

    def describe_valid_loss(self, loss: float) -> str:
        """Express a validation loss per frame in other terms, for the log; by default not."""
        return ""

"""Learning-rate schedules that count batches and epochs."""

from typing import Dict, List, Optional

import torch


class LRScheduler:
    """Base of the schedules: sets ``lr`` of every group from its ``base_lr`` and the batch and epoch counters.

    The optimizer's rates change at the first step or ``load_state_dict``, not when the schedule is made.
    ``base_lr`` lives in the optimizer's groups and is no part of the state, so a resumed run may change it.

    Args:
      optimizer: its groups' present ``lr`` becomes their ``base_lr``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
        self.epoch = 0
        self.batch = 0

    def state_dict(self) -> Dict[str, int]:
        """The counters."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state_dict: Dict[str, int]) -> None:
        """Set the counters, and the optimizer's rates accordingly."""
        self.epoch, self.batch = state_dict["epoch"], state_dict["batch"]
        self._set_lrs()

    def factor(self) -> float:
        """What ``base_lr`` is multiplied with at the present batch and epoch."""
        raise NotImplementedError

    def get_lr(self) -> List[float]:
        """The rate of each parameter group."""
        factor = self.factor()
        return [group["base_lr"] * factor for group in self.optimizer.param_groups]

    def get_last_lr(self) -> List[float]:
        """The rate that each parameter group has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step_batch(self, batch: Optional[int] = None) -> None:
        """Go to batch ``batch``, counted from the start of training, or one further."""
        self.batch = self.batch + 1 if batch is None else batch
        self._set_lrs()

    def step_epoch(self, epoch: Optional[int] = None) -> None:
        """Go to epoch ``epoch``, counted from 0, or one further."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_lrs()

    def _set_lrs(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = lr

    def _warmup(self, warmup_batches: float, warmup_start: float) -> float:
        if self.batch >= warmup_batches:
            return 1.0
        return warmup_start + (1.0 - warmup_start) * (self.batch / warmup_batches)


class Eden(LRScheduler):
    """The rate falls with the inverse square root of both batches and epochs (Zipformer, Yao et al. 2023, section 3.5).

    ``lr = base_lr * ((b^2 + B^2) / B^2)^-1/4 * ((e^2 + E^2) / E^2)^-1/4 * warmup``

    Args:
      optimizer: the optimizer.
      lr_batches: B, batches after which the rate falls noticeably.
      lr_epochs: E, likewise in epochs.
      warmup_batches: length of the linear rise at the start.
      warmup_start: factor at its first batch.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ) -> None:
        super().__init__(optimizer)
        self.lr_batches, self.lr_epochs = lr_batches, lr_epochs
        self.warmup_batches, self.warmup_start = warmup_batches, warmup_start

    def factor(self) -> float:
        """See the class."""
        by_batch = ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.25
        by_epoch = ((self.epoch**2 + self.lr_epochs**2) / self.lr_epochs**2) ** -0.25
        return by_batch * by_epoch * self._warmup(self.warmup_batches, self.warmup_start)


class Eden2(LRScheduler):
    """Eden without epochs: ``lr = base_lr * ((b^2 + B^2) / B^2)^-1/2 * warmup``; arguments as there."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, lr_batches: float, warmup_batches: float = 500.0, warmup_start: float = 0.5
    ) -> None:
        super().__init__(optimizer)
        self.lr_batches, self.warmup_batches, self.warmup_start = lr_batches, warmup_batches, warmup_start

    def factor(self) -> float:
        """See the class."""
        return ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.5 * self._warmup(self.warmup_batches, self.warmup_start)

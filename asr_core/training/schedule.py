"""Learning-rate schedules that count batches and epochs."""

import math
from typing import Dict, List, Optional, Sequence

import torch

from asr_core.training.optimizer_options import OptimizerOptions, Piece


class LRScheduler:
    """Base of the schedules: sets ``lr`` of every group from its ``base_lr`` and the batch and epoch counters.

    The optimizer's rates change at the first step or ``load_state_dict``, not when the schedule is made.
    ``base_lr`` lives in the optimizer's groups and is no part of the state, so a resumed run may change it.

    Args:
      optimizer: its groups' present ``lr`` becomes their ``base_lr``.

    Attributes:
      epoch_share: how much of the epoch was done before the present batch, from 0 to 1; the training loop sets it.
    """

    epoch_share: float = 0.0

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
        self,
        optimizer: torch.optim.Optimizer,
        lr_batches: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ) -> None:
        super().__init__(optimizer)
        self.lr_batches, self.warmup_batches, self.warmup_start = lr_batches, warmup_batches, warmup_start

    def factor(self) -> float:
        """See the class."""
        return ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.5 * self._warmup(
            self.warmup_batches, self.warmup_start
        )


class Noam(LRScheduler):
    """A linear rise, then the inverse square root of the batches (Vaswani et al. 2017, section 5.3).

    With s = b + offset: ``lr = base_lr * min(s / W, (s / W)^-1/2)``. That is ``scale * min(s * W^-3/2, s^-1/2)`` for
    ``base_lr = scale * W^-1/2``, the highest rate, reached at s = W.

    Args:
      optimizer: the optimizer.
      warmup_batches: W.
      offset: added to the batches.
      max_factor: the factor on ``base_lr`` never exceeds this.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_batches: float,
        offset: float = 0.0,
        max_factor: float = 1.0,
    ) -> None:
        super().__init__(optimizer)
        self.warmup_batches, self.offset, self.max_factor = warmup_batches, offset, max_factor

    def factor(self) -> float:
        """See the class."""
        share = (self.batch + self.offset) / self.warmup_batches
        return min(share if share <= 1 else share**-0.5, self.max_factor)


class WarmupHoldDecay(LRScheduler):
    """A linear rise to ``base_lr``, a while there, and a fall to a share of it, which remains.

    Args:
      optimizer: the optimizer.
      warmup_batches: length of the rise.
      warmup_start: factor at its first batch.
      hold_batches: length of the time at ``base_lr``.
      decay_batches: length of the fall; 0: there is none.
      decay_to: factor at its end.
      power: of a polynomial, 1 for a straight line; None: the fall is exponential.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_batches: float,
        warmup_start: float = 0.0,
        hold_batches: float = 0.0,
        decay_batches: float = 0.0,
        decay_to: float = 0.01,
        power: Optional[float] = None,
    ) -> None:
        super().__init__(optimizer)
        self.warmup_batches, self.warmup_start, self.hold_batches = warmup_batches, warmup_start, hold_batches
        self.decay_batches, self.decay_to, self.power = decay_batches, decay_to, power

    def factor(self) -> float:
        """See the class."""
        falling = self.batch - self.warmup_batches - self.hold_batches
        if falling <= 0 or not self.decay_batches:
            return self._warmup(self.warmup_batches, self.warmup_start)
        share = min(falling / self.decay_batches, 1.0)
        if self.power is None:
            return self.decay_to**share
        return self.decay_to + (1.0 - self.decay_to) * (1.0 - share) ** self.power


class Piecewise(LRScheduler):
    """Rates given piece by piece; what was reached at the end of the last one remains.

    The n-th unit (n from 1) of a piece with N units has the rate ``a + (b - a) * n / N`` if it is linear, ``a * (b / a)^(n / N)``
    if it is loglinear, b if it is constant: b is the piece's own rate, a that of the piece before, 0 for the first.

    Args:
      optimizer: its rates are those of the highest piece.
      pieces: the pieces.
      epoch_units: units in an epoch; 0: units are batches.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, pieces: Sequence[Piece], epoch_units: int = 0
    ) -> None:
        super().__init__(optimizer)
        self.pieces, self.epoch_units = list(pieces), epoch_units
        self.highest = max(piece.lr for piece in pieces)

    def unit(self) -> int:
        """The present unit, from 1."""
        if not self.epoch_units:
            return max(self.batch, 1)
        return (
            self.epoch * self.epoch_units
            + min(math.floor(self.epoch_share * self.epoch_units), self.epoch_units - 1)
            + 1
        )

    def factor(self) -> float:
        """See the class."""
        n, before = self.unit(), 0.0
        for units, lr, kind in self.pieces:
            if n <= units:
                share = 1.0 if kind == "const" else n / units
                reached = (
                    before * (lr / before) ** share if kind == "loglinear" else before + (lr - before) * share
                )
                return reached / self.highest
            n, before = n - units, lr
        return before / self.highest


def build_scheduler(optimizer: torch.optim.Optimizer, opts: OptimizerOptions) -> LRScheduler:
    """The schedule that ``opts`` name."""
    warmup = {"warmup_batches": opts.warmup_batches, "warmup_start": opts.warmup_start}
    if opts.schedule == "eden":
        return Eden(optimizer, opts.lr_batches, opts.lr_epochs, **warmup)
    if opts.schedule == "eden2":
        return Eden2(optimizer, opts.lr_batches, **warmup)
    if opts.schedule == "noam":
        return Noam(
            optimizer,
            opts.warmup_batches,
            opts.noam_offset,
            opts.noam_max_lr / opts.base_lr if opts.noam_max_lr else 1.0,
        )
    if opts.schedule == "hold":
        power = opts.decay_power if opts.decay_shape == "polynomial" else None
        return WarmupHoldDecay(optimizer, **warmup, hold_batches=opts.hold_batches, decay_batches=opts.decay_batches,
                               decay_to=opts.decay_to, power=power)  # fmt: skip
    return Piecewise(optimizer, opts.pieces(), opts.epoch_split if opts.lr_unit == "epoch" else 0)

"""Learning-rate schedules over batches and epochs."""

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import torch

from asr_core.training.optimizer_options import OptimizerOptions, Piece


@dataclass(frozen=True)
class Warmup:
    """A linear rise of the rate at the start of training.

    Attributes:
      batches: its length.
      start: factor on ``base_lr`` at its start.
    """

    batches: float = 500.0
    start: float = 0.5

    def factor(self, batch: int) -> float:
        """Return the factor on ``base_lr`` after ``batch`` steps."""
        if batch >= self.batches:
            return 1.0
        return self.start + (1.0 - self.start) * (batch / self.batches)


class LRScheduler:
    """Base of the schedules: sets ``lr`` of each group from its ``base_lr`` and the counters.

    The optimizer's rates change at the first step or ``load_state_dict``, not at construction.
    ``base_lr`` lives in the optimizer's groups and is no part of the state, so a resumed run may
    change it.

    Args:
      optimizer: its groups' present ``lr`` becomes their ``base_lr``.

    Attributes:
      batch: steps since the start of training.
      epoch: epochs since the start of training, from 0.
      epoch_share: share of the epoch, from 0 to 1, that was done before the present batch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
        self.epoch = 0
        self.batch = 0
        self.epoch_share = 0.0

    def state_dict(self) -> Dict[str, int]:
        """Return the counters."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state_dict: Dict[str, int]) -> None:
        """Set the counters, and with them the optimizer's rates."""
        self.epoch, self.batch = state_dict["epoch"], state_dict["batch"]
        self._set_lrs()

    def factor(self) -> float:
        """Return the factor on ``base_lr`` at the present batch and epoch."""
        raise NotImplementedError

    def get_lr(self) -> List[float]:
        """Return the rate of each parameter group for the present counters."""
        factor = self.factor()
        return [group["base_lr"] * factor for group in self.optimizer.param_groups]

    def get_last_lr(self) -> List[float]:
        """Return the rate that each parameter group has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step_batch(self, batch: Optional[int] = None, epoch_share: Optional[float] = None) -> None:
        """Move to another batch.

        Args:
          batch: its number since the start of training; None: the next one.
          epoch_share: share of the epoch that was done before it; None: unchanged.
        """
        self.batch = self.batch + 1 if batch is None else batch
        if epoch_share is not None:
            self.epoch_share = epoch_share
        self._set_lrs()

    def step_epoch(self, epoch: Optional[int] = None) -> None:
        """Move to epoch ``epoch``, counted from 0, or by default to the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_lrs()

    def _set_lrs(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = lr


class Eden(LRScheduler):
    """A rate that falls with the inverse square root of both batches and epochs.

    See Zipformer (Yao et al. 2023, https://arxiv.org/abs/2310.11230), section 3.5.

    ``lr = base_lr * ((b^2 + B^2) / B^2)^-1/4 * ((e^2 + E^2) / E^2)^-1/4 * warmup``

    Args:
      optimizer: the optimizer.
      lr_batches: B, the number of batches after which the rate falls noticeably.
      lr_epochs: E, the same in epochs.
      warmup: the rise before it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup: Warmup = Warmup(),
    ) -> None:
        super().__init__(optimizer)
        self.lr_batches, self.lr_epochs, self.warmup = lr_batches, lr_epochs, warmup

    def factor(self) -> float:
        """Return the factor on ``base_lr`` that the class defines."""
        by_batch = ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.25
        by_epoch = ((self.epoch**2 + self.lr_epochs**2) / self.lr_epochs**2) ** -0.25
        return by_batch * by_epoch * self.warmup.factor(self.batch)


class Eden2(LRScheduler):
    """Eden without epochs: ``lr = base_lr * ((b^2 + B^2) / B^2)^-1/2 * warmup``.

    The power is -1/2 because batches replace both of Eden's factors.

    Args:
      optimizer, lr_batches, warmup: see :class:`Eden`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, lr_batches: float, warmup: Warmup = Warmup()
    ) -> None:
        super().__init__(optimizer)
        self.lr_batches, self.warmup = lr_batches, warmup

    def factor(self) -> float:
        """Return the factor on ``base_lr`` that the class defines."""
        by_batch = ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.5
        return by_batch * self.warmup.factor(self.batch)


class Noam(LRScheduler):
    """A linear rise, then a fall with the inverse square root of the batches.

    See Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), section 5.3.

    With s = b + offset: ``lr = base_lr * min(s / W, (s / W)^-1/2)``. That is
    ``scale * min(s * W^-3/2, s^-1/2)`` for ``base_lr = scale * W^-1/2``, the highest rate, reached
    at s = W.

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
        """Return the factor on ``base_lr`` that the class defines."""
        share = (self.batch + self.offset) / self.warmup_batches
        return min(share if share <= 1 else share**-0.5, self.max_factor)


class WarmupHoldDecay(LRScheduler):
    """A linear rise to ``base_lr``, a plateau, and a fall to a share of it, which remains.

    Args:
      optimizer: the optimizer.
      warmup: the rise.
      hold_batches: length of the plateau.
      decay_batches: length of the fall; 0: the plateau never ends.
      decay_to: factor at the end of the fall.
      power: exponent of a polynomial fall, 1 for a straight line; None: the fall is exponential.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup: Warmup,
        hold_batches: float = 0.0,
        decay_batches: float = 0.0,
        decay_to: float = 0.01,
        power: Optional[float] = None,
    ) -> None:
        super().__init__(optimizer)
        self.warmup, self.hold_batches = warmup, hold_batches
        self.decay_batches, self.decay_to, self.power = decay_batches, decay_to, power

    def factor(self) -> float:
        """Return the factor on ``base_lr`` that the class defines."""
        falling = self.batch - self.warmup.batches - self.hold_batches
        if falling <= 0 or not self.decay_batches:
            return self.warmup.factor(self.batch)
        share = min(falling / self.decay_batches, 1.0)
        if self.power is None:
            return self.decay_to**share
        return self.decay_to + (1.0 - self.decay_to) * (1.0 - share) ** self.power


class Piecewise(LRScheduler):
    """Rates given piece by piece; the rate at the end of the last piece remains.

    The n-th unit (n from 1) of a piece with N units has the rate ``a + (b - a) * n / N`` if the
    piece is linear, ``a * (b / a)^(n / N)`` if it is loglinear and b if it is constant, where b is
    the piece's own rate and a that of the piece before, 0 for the first.

    Args:
      optimizer: its rates are those of the highest piece.
      pieces: the pieces.
      epoch_units: number of units in an epoch; 0: units are batches.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, pieces: Sequence[Piece], epoch_units: int = 0
    ) -> None:
        super().__init__(optimizer)
        self.pieces, self.epoch_units = list(pieces), epoch_units
        self.highest = max(piece.lr for piece in pieces)

    def unit(self) -> int:
        """Return the present unit, from 1."""
        if not self.epoch_units:
            return max(self.batch, 1)
        # An epoch with more data than was counted stays in its last unit.
        unit = min(math.floor(self.epoch_share * self.epoch_units), self.epoch_units - 1)
        return self.epoch * self.epoch_units + unit + 1

    def factor(self) -> float:
        """Return the factor on ``base_lr`` that the class defines."""
        n, before = self.unit(), 0.0
        for units, lr, kind in self.pieces:
            if n > units:
                n, before = n - units, lr
                continue
            if kind == "const":
                rate = lr
            elif kind == "linear":
                rate = before + (lr - before) * (n / units)
            else:
                rate = before * (lr / before) ** (n / units)
            return rate / self.highest
        return before / self.highest


def build_scheduler(optimizer: torch.optim.Optimizer, opts: OptimizerOptions) -> LRScheduler:
    """Build the schedule that ``--schedule`` names."""
    warmup = Warmup(opts.warmup_batches, opts.warmup_start)
    if opts.schedule == "eden":
        return Eden(optimizer, lr_batches=opts.lr_batches, lr_epochs=opts.lr_epochs, warmup=warmup)
    if opts.schedule == "eden2":
        return Eden2(optimizer, lr_batches=opts.lr_batches, warmup=warmup)
    if opts.schedule == "noam":
        return Noam(
            optimizer,
            warmup_batches=opts.warmup_batches,
            offset=opts.noam_offset,
            max_factor=opts.noam_max_lr / opts.base_lr if opts.noam_max_lr else 1.0,
        )
    if opts.schedule == "hold":
        return WarmupHoldDecay(
            optimizer,
            warmup,
            hold_batches=opts.hold_batches,
            decay_batches=opts.decay_batches,
            decay_to=opts.decay_to,
            power=opts.decay_power if opts.decay_shape == "polynomial" else None,
        )
    epoch_units = opts.epoch_split if opts.lr_unit == "epoch" else 0
    return Piecewise(optimizer, opts.pieces(), epoch_units=epoch_units)

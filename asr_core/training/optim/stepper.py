"""Steps of the optimizer, taken only with finite gradients, and float16's loss scale."""

import logging
import math
from types import MappingProxyType
from typing import Any, List, Mapping, NamedTuple, Optional, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from asr_core.training.optim.shards import Shards

_LOW_SCALE = 0.01  # of the loss; below it training rarely recovers, so it is reported


@runtime_checkable
class ChecksGradients(Protocol):
    """An optimizer that checks its gradients itself, as ScaledAdam does.

    Attributes:
      skipped: whether the last step changed nothing because gradients were not finite.
      grad_norm: norm of the last step's gradients.
    """

    skipped: bool
    grad_norm: float


class GradientScaling(NamedTuple):
    """Treatment of a step's gradients before the optimizer gets them.

    Attributes:
      mean: divide them by the step's number of these: ``"utterances"``, ``"frames"``, or
        ``"none"``.
      max_norm: then scale them down to this norm of all together; 0: never.
    """

    mean: str = "none"
    max_norm: float = 0.0


class Stepper:
    """Steps that leave the model alone where gradients are not finite.

    Args:
      optimizer: one with ``skipped`` and ``grad_norm`` checks its gradients itself.
      scaler: loss scaler of float16; may be disabled.
      rule: for gradients that the optimizer does not check itself.
      shards: which part of the parameters the optimizer has.

    Attributes:
      grad_norm: norm of the last step's gradients (ScaledAdam: relative to the sizes of the
        parameters).
      scale_before: loss scale of the last step.
      overflowed: the last step was left out because gradients overflowed float16, and the loss
        scale was lowered: no reason to worry as long as it is above 1.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        rule: GradientScaling = GradientScaling(),
        shards: Optional[Shards] = None,
    ) -> None:
        self.shards = shards or Shards()
        self.optimizer = optimizer
        self.scaler = scaler
        self.rule = rule
        self._checks_itself = isinstance(optimizer, ChecksGradients)
        # Fused kernels leave the step out where the device finds that they should.
        self._asks_nothing = self._params()[0].is_cuda and bool(optimizer.defaults.get("fused"))
        self._norm: Optional[Tensor] = None  # of the step under way, if the host has not seen it
        self.grad_norm = 0.0
        self.scale_before = 1.0
        self.overflowed = False
        self._one: Optional[Tensor] = None
        self._scaled_one: Optional[Tensor] = None  # the loss scale of the step under way

    @property
    def scale(self) -> float:
        """Loss scale; 1 if losses are not scaled."""
        return float(self.scaler.get_scale()) if self.scaler.is_enabled() else 1.0

    def step(self, batch_idx_train: int, sizes: Mapping[str, float] = MappingProxyType({})) -> bool:
        """Update the parameters; see :meth:`start` and :meth:`settle`."""
        self.start(sizes)
        return self.settle(batch_idx_train)

    @property
    def needs_sizes(self) -> bool:
        """Whether the gradients are divided by the size of the step."""
        return not self._checks_itself and self.rule.mean != "none"

    def start(self, sizes: Mapping[str, float] = MappingProxyType({})) -> None:
        """Begin to update the parameters, unless their gradients are not finite.

        If the optimizer checks its gradients itself, or is a fused one of a GPU, nothing waits for
        the device.

        Args:
          sizes: numbers of ``utterances`` and ``frames`` of the step, of all ranks together.
        """
        if self.scaler.is_enabled():
            if self._one is None:
                self._one = torch.ones((), device=self._params()[0].device)
            self._scaled_one = self.scaler.scale(self._one)
        self.scaler.unscale_(self.optimizer)
        if not self._checks_itself:
            self._prepare(sizes)
        if self._checks_itself or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
        elif self._norm is not None:
            cast(Any, self.optimizer).found_inf = (~self._norm.isfinite()).float()
            self.optimizer.step()
            del cast(Any, self.optimizer).found_inf
        elif math.isfinite(self.grad_norm):
            self.optimizer.step()
        self.scaler.update()

    def settle(self, batch_idx_train: int, finite_loss: bool = True) -> bool:
        """Wait for the step.

        Return False if its gradients are not finite, and nothing was changed.

        Args:
          batch_idx_train: steps since the start of training.
          finite_loss: whether the loss was finite. If it was not, neither are the gradients, and
            its scale is not to blame.
        """
        self.scale_before = 1.0 if self._scaled_one is None else float(self._scaled_one)
        if self._norm is not None:
            self.grad_norm, self._norm = float(self._norm), None
        if not finite_loss:
            self.overflowed = False
            if self.scaler.is_enabled():
                self.scaler.update(self.scale_before)
            return False
        self.overflowed = self.scale < self.scale_before
        if self.scaler.is_enabled():
            self._grow_loss_scale(batch_idx_train)
        if self.overflowed:
            self.grad_norm = math.inf
        elif isinstance(self.optimizer, ChecksGradients):
            self.grad_norm = float(self.optimizer.grad_norm)
        return math.isfinite(self.grad_norm)

    @torch.no_grad()
    def _prepare(self, sizes: Mapping[str, float]) -> None:
        """Apply the rule; record the norm before clipping."""
        params = [p for p in self._params() if p.grad is not None]
        grads = [p.grad for p in params if p.grad is not None]
        share = 1.0 if self.rule.mean == "none" else 1.0 / max(sizes[self.rule.mean], 1.0)
        norms = torch.stack(torch._foreach_norm(grads))
        norm = self.shards.sum(norms.square(), params).sum().sqrt()
        if self._asks_nothing:
            self._norm = share * norm
            if self.rule.max_norm > 0:
                torch._foreach_mul_(
                    grads, share * (self.rule.max_norm / (self._norm + 1.0e-6)).clamp(max=1.0)
                )
            elif share != 1.0:
                torch._foreach_mul_(grads, share)
            return
        self.grad_norm = share * float(norm)
        if self.rule.max_norm > 0:
            share *= min(1.0, self.rule.max_norm / (self.grad_norm + 1.0e-6))
        if share != 1.0 and math.isfinite(self.grad_norm):
            torch._foreach_mul_(grads, share)

    def _params(self) -> List[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _grow_loss_scale(self, n: int) -> None:
        """Grow a small loss scale faster: torch alone takes 2000 steps for each doubling.

        The smaller the scale, the more gradients underflow, and the more often it is doubled: below
        2 every 25 steps.
        """
        scale = self.scale
        if (scale < 2 and n % 25 == 0) or (scale < 8 and n % 100 == 0) or (scale < 32 and n % 400 == 0):
            self.scaler.update(scale * 2.0)
        if scale < _LOW_SCALE and n % 25 == 0:
            logging.warning("grad scale is small: %.2e", scale)

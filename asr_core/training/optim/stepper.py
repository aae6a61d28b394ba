"""The step of the optimizer: only with finite gradients, and with float16's loss scale looked after."""

import logging
import math
from types import MappingProxyType
from typing import Any, List, Mapping, NamedTuple

import torch
from torch import Tensor, nn

_LOW_SCALE = 0.01


class GradientScaling(NamedTuple):
    """What is done with the gradients of a step before the optimizer gets them.

    Attributes:
      mean: they are divided by the step's number of these: ``"utterances"``, ``"frames"``, or ``"none"``.
      max_norm: then they are scaled down to this norm of all together; 0: never.
    """

    mean: str = "none"
    max_norm: float = 0.0


class Stepper:
    """Takes steps that are safe to take.

    Args:
      model: whose gradients are used.
      optimizer: if it has ``skipped`` and ``grad_norm``, it looks at its gradients itself.
      scaler: of float16's loss; may be disabled.
      rule: for gradients that the optimizer does not look at itself.

    Attributes:
      grad_norm: norm of the last step's gradients (ScaledAdam: relative to the sizes of the parameters).
      overflowed: the last step was left out because gradients overflowed float16, and the loss scale was lowered: no
        reason to worry as long as it is above 1.
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, scaler: Any, rule: GradientScaling = GradientScaling()
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scaler = scaler
        self.rule = rule
        self.grad_norm = 0.0
        self.overflowed = False

    @property
    def scale(self) -> float:
        """The loss scale; 1 where there is none."""
        return float(self.scaler.get_scale()) if self.scaler.is_enabled() else 1.0

    def step(self, batch_idx_train: int, sizes: Mapping[str, float] = MappingProxyType({})) -> bool:
        """Update the parameters; False if their gradients are not finite, and nothing was changed.

        Args:
          batch_idx_train: steps since the start of training.
          sizes: how many ``utterances`` and ``frames`` the step has, of all ranks together.
        """
        before = self.scale
        self.scaler.unscale_(self.optimizer)
        checks_itself = hasattr(self.optimizer, "skipped")
        if not checks_itself:
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._prepare(grads, sizes)
        if checks_itself or self.scaler.is_enabled() or math.isfinite(self.grad_norm):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.overflowed = self.scale < before
        if self.scaler.is_enabled():
            self._grow_loss_scale(batch_idx_train)
        if self.overflowed:
            self.grad_norm = math.inf
        elif checks_itself:
            self.grad_norm = float(self.optimizer.grad_norm)
        return math.isfinite(self.grad_norm)

    @torch.no_grad()
    def _prepare(self, grads: List[Tensor], sizes: Mapping[str, float]) -> None:
        """Apply the rule; note the norm before clipping."""
        share = 1.0 if self.rule.mean == "none" else 1.0 / max(sizes[self.rule.mean], 1.0)
        self.grad_norm = share * float(torch.nn.utils.get_total_norm(grads))
        if self.rule.max_norm > 0:
            share *= min(1.0, self.rule.max_norm / (self.grad_norm + 1.0e-6))
        if share != 1.0 and math.isfinite(self.grad_norm):
            torch._foreach_mul_(grads, share)

    def _grow_loss_scale(self, n: int) -> None:
        """Help a small loss scale to grow: torch alone takes 2000 steps for each doubling."""
        scale = self.scale
        if (scale < 2 and n % 25 == 0) or (scale < 8 and n % 100 == 0) or (scale < 32 and n % 400 == 0):
            self.scaler.update(scale * 2.0)
        if scale < _LOW_SCALE and n % 25 == 0:
            logging.warning("grad scale is small: %.2e", scale)

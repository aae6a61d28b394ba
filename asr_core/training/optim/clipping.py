"""Gradient clipping at a multiple of the recent median norm."""

import logging
from typing import Any, Dict, Optional

import torch
from torch import Tensor

# Steps of the first estimates, before a whole period has been seen; gradients change quickly then,
# so the limit is doubled.
_EARLY = (10, 20, 40)
_EARLY_FACTOR = 2.0


class GradientClipper:
    """Limit of the gradient norm of one parameter group: a multiple of the median of its last norms
    (Yao et al. 2023, appendix A.1).

    The multiple is usually 2: half of all batches lie below the median, and norms beyond twice the
    median are outliers, which a single odd batch causes. Ring buffer, threshold and counter are
    entries of ``state`` (the optimizer's state of the group's first stack), so they are saved and
    restored with it. :meth:`factor` queues work on the device and waits for nothing;
    :meth:`settle` brings the entries up to date once the step's numbers are known.

    Args:
      group: a parameter group of ScaledAdam (``clipping_scale``, ``clipping_update_period``).
      state: where to keep ``model_norms``, ``model_norm_threshold`` and ``num_clipped``; its
        ``step`` counts the steps done.
      device: device of the gradients.
    """

    def __init__(self, group: Dict[str, Any], state: Dict[str, Any], device: torch.device) -> None:
        self.scale = group["clipping_scale"]
        self.period = group["clipping_update_period"]
        self.state = state
        threshold = float(state.get("model_norm_threshold", torch.inf))
        self._threshold = torch.tensor(threshold, dtype=torch.float64, device=device)
        self._one = torch.ones((), dtype=torch.float64, device=device)
        self._quartiles: Optional[Tensor] = None  # if this step estimates the threshold
        if "model_norms" in state:
            state["model_norms"] = state["model_norms"].to(device)

    def factor(self, norm: Tensor, good: Tensor) -> Tensor:
        """Record a step's gradient norm; return the factor in (0, 1] for its gradients, float64.

        Args:
          norm: the norm, a scalar.
          good: whether the step counts: bool, a scalar.
        """
        state, step = self.state, self.state["step"]
        if self.scale is None or step == 0:
            return self._one
        if "model_norms" not in state:
            state["model_norms"] = torch.zeros(self.period, device=norm.device)
        slot = state["model_norms"][step % self.period]
        slot.copy_(torch.where(good, norm, slot))
        if step % self.period == 0 or (step in _EARLY and step < self.period):
            self._estimate(step, good)
        return (self._threshold / (norm.double() + 1.0e-20)).clamp(max=1.0)

    def _estimate(self, step: int, good: Tensor) -> None:
        """Recompute the threshold from the recorded norms."""
        norms = self.state["model_norms"].float().sort()[0]
        if step < self.period:
            norms = norms[-step:]
        n = norms.numel()
        self._quartiles = torch.stack([norms[min(n - 1, (n // 4) * q)] for q in range(5)]).double()
        threshold = self._quartiles[2] * self.scale * (_EARLY_FACTOR if step < self.period else 1.0)
        self._threshold = torch.where(good, threshold, self._threshold)

    def settle(self, good: bool, factor: float) -> None:
        """Note the outcome of a step, before it is counted.

        Args:
          good: whether the step counts.
          factor: what :meth:`factor` returned.
        """
        quartiles, self._quartiles = self._quartiles, None
        if good and quartiles is not None:
            self._report(quartiles)
        if good and factor < 1.0:
            self.state["num_clipped"] += 1

    def _report(self, quartiles: Tensor) -> None:
        """Keep and log a new threshold."""
        state = self.state
        clipped = 100.0 * state.get("num_clipped", 0) / min(state["step"], self.period)
        state["model_norm_threshold"] = float(self._threshold)
        state["num_clipped"] = 0
        shown = " ".join(f"{q:.3e}" for q in quartiles.tolist())
        logging.info(
            "Clipping_scale=%s, grad-norm quartiles %s, threshold=%.3e, percent-clipped=%.1f",
            self.scale,
            shown,
            state["model_norm_threshold"],
            clipped,
        )

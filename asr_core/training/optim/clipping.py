"""Gradient clipping at a multiple of the recent median norm."""

import logging
from typing import Any, Dict

import torch

# Steps of the first estimates, before a whole period has been seen; gradients change quickly then,
# so the limit is doubled.
_EARLY = (10, 20, 40)
_EARLY_FACTOR = 2.0


class GradientClipper:
    """Limit of the gradient norm of one parameter group: a multiple of the median of its last norms
    (Yao et al. 2023, appendix A.1).

    The multiple is usually 2: half of all batches lie below the median, and norms beyond twice the
    median are outliers, which a single odd batch causes. It keeps nothing itself: ring buffer,
    threshold and counter are entries of ``state`` (the optimizer's state of the group's first
    stack), so they are saved and restored with it.

    Args:
      group: a parameter group of ScaledAdam (``clipping_scale``, ``clipping_update_period``).
      state: where to keep ``model_norms``, ``model_norm_threshold`` and ``num_clipped``; its
        ``step`` counts the steps done.
    """

    def __init__(self, group: Dict[str, Any], state: Dict[str, Any]) -> None:
        self.scale = group["clipping_scale"]
        self.period = group["clipping_update_period"]
        self.state = state

    def update(self, norm: float) -> float:
        """Record a step's gradient norm (finite); return the factor in (0, 1] for its gradients."""
        state, step = self.state, self.state["step"]
        if self.scale is None or step == 0:
            return 1.0
        if "model_norms" not in state:
            state["model_norms"] = torch.zeros(self.period)
        state["model_norms"][step % self.period] = norm
        if step % self.period == 0 or (step in _EARLY and step < self.period):
            self._estimate(step)
        threshold = state.get("model_norm_threshold")
        if threshold is None:
            return 1.0
        factor = min(1.0, float(threshold) / (norm + 1.0e-20))
        if factor < 1.0:
            state["num_clipped"] += 1
        return factor

    def _estimate(self, step: int) -> None:
        """Recompute the threshold from the recorded norms."""
        early = step < self.period
        norms = self.state["model_norms"].float().cpu().sort()[0]
        if early:
            norms = norms[-step:]
        n = norms.numel()
        quartiles = [float(norms[min(n - 1, (n // 4) * q)]) for q in range(5)]
        threshold = self.scale * quartiles[2] * (_EARLY_FACTOR if early else 1.0)
        clipped = 100.0 * self.state.get("num_clipped", 0) / n
        self.state["model_norm_threshold"] = threshold
        self.state["num_clipped"] = 0
        shown = " ".join(f"{q:.3e}" for q in quartiles)
        logging.info(
            "Clipping_scale=%s, grad-norm quartiles %s, threshold=%.3e, percent-clipped=%.1f",
            self.scale,
            shown,
            threshold,
            clipped,
        )

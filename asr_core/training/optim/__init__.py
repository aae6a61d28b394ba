"""Optimizers, and the parts of a step: clipping, averages, noise."""

from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs

__all__ = ["ScaledAdam", "get_parameter_groups_with_lrs"]

"""Models assembled from encoders, predictors and heads."""

from asr_core.models.asr_model import AsrModel, Losses
from asr_core.models.options import ModelOptions, build_model

__all__ = ["AsrModel", "Losses", "ModelOptions", "build_model"]

"""Prediction networks of transducers."""

from asr_core.predictors.stateless import StatelessPredictor

__all__ = ["StatelessPredictor"]

"""Prediction networks of transducers."""

from asr_core.predictors.lstm import LstmPredictor
from asr_core.predictors.stateless import StatelessPredictor

__all__ = ["LstmPredictor", "StatelessPredictor"]

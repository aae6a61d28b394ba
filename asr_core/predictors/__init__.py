"""Prediction networks of transducers."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.predictors.lstm import LstmPredictor
    from asr_core.predictors.stateless import StatelessPredictor

__all__ = ["LstmPredictor", "StatelessPredictor"]

__getattr__ = lazy_exports(__name__, {"LstmPredictor": ".lstm", "StatelessPredictor": ".stateless"})

"""Prediction networks of transducers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.predictors.lstm import LstmPredictor
    from asr_core.predictors.stateless import StatelessPredictor

__all__ = ["LstmPredictor", "StatelessPredictor"]


def __getattr__(name: str) -> Any:
    """The predictors, which need torch, on first use."""
    if name == "LstmPredictor":
        from asr_core.predictors.lstm import LstmPredictor

        return LstmPredictor
    if name == "StatelessPredictor":
        from asr_core.predictors.stateless import StatelessPredictor

        return StatelessPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

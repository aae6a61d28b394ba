"""Models assembled from encoders, predictors and heads."""

from typing import TYPE_CHECKING, Any

from asr_core.models.options import ModelOptions, build_model

if TYPE_CHECKING:
    from asr_core.models.asr_model import AsrModel, Losses

__all__ = ["AsrModel", "Losses", "ModelOptions", "build_model"]


def __getattr__(name: str) -> Any:
    """AsrModel and Losses, which need torch, on first use."""
    if name in ("AsrModel", "Losses"):
        from asr_core.models import asr_model

        return getattr(asr_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

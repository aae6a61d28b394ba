"""Models assembled from encoders, prediction networks and heads."""

from typing import TYPE_CHECKING

from asr_core.models.options import ModelOptions
from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.models.asr_model import AsrModel, Losses
    from asr_core.models.build import build_model

__all__ = ["AsrModel", "Losses", "ModelOptions", "build_model"]

__getattr__ = lazy_exports(
    __name__, {"AsrModel": ".asr_model", "Losses": ".asr_model", "build_model": ".build"}
)

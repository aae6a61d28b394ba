"""Encoders."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.conformer.encoder import Conformer
    from asr_core.encoders.zipformer.encoder import Zipformer2

__all__ = ["Conformer", "Zipformer2"]


def __getattr__(name: str) -> Any:
    """An encoder, which needs torch, on first use."""
    import importlib

    modules = {"Conformer": "conformer.encoder", "Zipformer2": "zipformer.encoder"}
    if name in modules:
        return getattr(importlib.import_module(f"asr_core.encoders.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

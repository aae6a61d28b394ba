"""Encoders."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.zipformer import Zipformer2

__all__ = ["Zipformer2"]


def __getattr__(name: str) -> Any:
    """Zipformer2, which needs torch, on first use."""
    if name == "Zipformer2":
        from asr_core.encoders.zipformer import Zipformer2

        return Zipformer2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

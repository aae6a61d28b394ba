"""Zipformer (Yao et al. 2023)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.zipformer.encoder import Zipformer2

__all__ = ["Zipformer2"]


def __getattr__(name: str) -> Any:
    """Import the encoder, which needs torch, on first use: its options are read without it."""
    if name == "Zipformer2":
        from asr_core.encoders.zipformer.encoder import Zipformer2

        return Zipformer2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

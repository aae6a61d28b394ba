"""Conformer (Gulati et al. 2020)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.conformer.encoder import Conformer

__all__ = ["Conformer"]


def __getattr__(name: str) -> Any:
    """Import the encoder, which needs torch, on first use: its options are read without it."""
    if name == "Conformer":
        from asr_core.encoders.conformer.encoder import Conformer

        return Conformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""ContextNet (Han et al. 2020)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.contextnet.encoder import ContextNet

__all__ = ["ContextNet"]


def __getattr__(name: str) -> Any:
    """Import the encoder, which needs torch, on first use: its options are read without it."""
    if name == "ContextNet":
        from asr_core.encoders.contextnet.encoder import ContextNet

        return ContextNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

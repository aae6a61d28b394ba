"""The first Zipformer, of icefall's pruned_transducer_stateless7."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.zipformer1.encoder import Zipformer

__all__ = ["Zipformer"]


def __getattr__(name: str) -> Any:
    """Import the encoder, which needs torch, on first use: its options are read without it."""
    if name == "Zipformer":
        from asr_core.encoders.zipformer1.encoder import Zipformer

        return Zipformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

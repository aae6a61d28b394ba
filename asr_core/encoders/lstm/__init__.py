"""An encoder of projected LSTM layers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_core.encoders.lstm.encoder import LstmEncoder

__all__ = ["LstmEncoder"]


def __getattr__(name: str) -> Any:
    """Import the encoder, which needs torch, on first use: its options are read without it."""
    if name == "LstmEncoder":
        from asr_core.encoders.lstm.encoder import LstmEncoder

        return LstmEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

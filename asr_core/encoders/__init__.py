"""Encoders."""

from asr_core.encoders.zipformer import Zipformer2

__all__ = ["Zipformer2"]

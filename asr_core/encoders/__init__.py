"""Encoders: from feature frames to encoder output."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.conformer.encoder import Conformer
    from asr_core.encoders.zipformer.encoder import Zipformer2

__all__ = ["Conformer", "Zipformer2"]

__getattr__ = lazy_exports(__name__, {"Conformer": ".conformer.encoder", "Zipformer2": ".zipformer.encoder"})

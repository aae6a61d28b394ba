"""Zipformer (Yao et al. 2023, https://arxiv.org/abs/2310.11230)."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.zipformer.encoder import Zipformer2

__all__ = ["Zipformer2"]

__getattr__ = lazy_exports(__name__, {"Zipformer2": ".encoder"})

"""Conformer (Gulati et al. 2020, https://arxiv.org/abs/2005.08100)."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.conformer.encoder import Conformer

__all__ = ["Conformer"]

__getattr__ = lazy_exports(__name__, {"Conformer": ".encoder"})

"""ContextNet (Han et al. 2020, https://arxiv.org/abs/2005.03191)."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.contextnet.encoder import ContextNet

__all__ = ["ContextNet"]

__getattr__ = lazy_exports(__name__, {"ContextNet": ".encoder"})

"""The first, streaming Zipformer (icefall's ``pruned_transducer_stateless7_streaming``)."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.zipformer1.encoder import Zipformer

__all__ = ["Zipformer"]

__getattr__ = lazy_exports(__name__, {"Zipformer": ".encoder"})

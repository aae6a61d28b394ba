"""An encoder of projected LSTM layers, after icefall's ``lstm_transducer_stateless``."""

from typing import TYPE_CHECKING

from asr_core.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from asr_core.encoders.lstm.encoder import LstmEncoder

__all__ = ["LstmEncoder"]

__getattr__ = lazy_exports(__name__, {"LstmEncoder": ".encoder"})

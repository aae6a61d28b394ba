"""The LSTM encoder that its options describe."""

from typing import Tuple

from asr_core.encoders.lstm.encoder import LstmEncoder
from asr_core.encoders.lstm.options import LstmOptions
from asr_core.nn.scaling import SwooshR
from asr_core.nn.subsampling4 import Conv2dSubsamplingNarrow
from asr_core.utils.errors import UserError


def build(opts: LstmOptions, feature_dim: int) -> Tuple[Conv2dSubsamplingNarrow, LstmEncoder]:
    """Build front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`.

    Raises:
      UserError: the encoder was asked to see the future.
    """
    if not opts.causal:
        raise UserError("--causal 0: an LSTM sees only the past; leave it out")
    encoder = LstmEncoder(opts)
    return Conv2dSubsamplingNarrow(feature_dim, opts.encoder_dim, SwooshR(), opts.dropout), encoder

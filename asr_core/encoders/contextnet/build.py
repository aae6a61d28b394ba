"""The ContextNet that its options describe."""

import math
from typing import Tuple

from asr_core.encoders.contextnet.encoder import ContextNet
from asr_core.encoders.contextnet.front_end import PassThrough
from asr_core.encoders.contextnet.options import ContextNetOptions, block_lists
from asr_core.utils.errors import UserError

_FACTORS = (2, 4, 8, 16)


def build(opts: ContextNetOptions, feature_dim: int) -> Tuple[PassThrough, ContextNet]:
    """Build front end (none) and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`.

    Raises:
      UserError: options that contradict each other.
    """
    lists = block_lists(opts)
    factor = math.prod(lists["block_strides"])
    if factor not in _FACTORS:
        raise UserError(f"the product of --block-strides must be 2, 4, 8 or 16, not {factor}")
    encoder = ContextNet(
        feature_dim,
        channels=[round(c * opts.alpha) for c in lists["block_channels"]],
        num_layers=lists["block_layers"],
        strides=lists["block_strides"],
        kernel_size=opts.kernel_size,
        residual_kernel=opts.residual_kernel,
        se_ratio=opts.se_ratio,
        padding=opts.padding,
        causal=opts.causal,
        chunk_size=opts.chunk_size,
        left_context_frames=opts.left_context_frames,
    )
    return PassThrough(), encoder

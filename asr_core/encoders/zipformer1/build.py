"""The first, streaming Zipformer that its options describe."""

import dataclasses
from typing import Tuple

from asr_core.encoders.chunk_options import decoding_chunk
from asr_core.encoders.zipformer1.encoder import Zipformer
from asr_core.encoders.zipformer1.options import Zipformer1Options
from asr_core.encoders.zipformer1.subsampling import Conv2dSubsamplingZipformer1
from asr_core.utils.errors import UserError


def build(opts: Zipformer1Options, feature_dim: int) -> Tuple[Conv2dSubsamplingZipformer1, Zipformer]:
    """Build front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`.

    Raises:
      UserError: options that contradict each other.
    """
    if not opts.causal:
        raise UserError("--causal 0: this encoder is always causal, leave it out")
    chunk_size, left_context_frames = _chunks(opts)
    encoder = Zipformer(
        dataclasses.replace(opts, chunk_size=chunk_size, left_context_frames=left_context_frames)
    )
    return Conv2dSubsamplingZipformer1(feature_dim, encoder.encoder_dim[0]), encoder


def _chunks(opts: Zipformer1Options) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """Return chunk sizes and left contexts.

    By default they follow from ``decode_chunk_len`` and ``num_left_chunks``.
    """
    chunk, _ = decoding_chunk(opts.decode_chunk_len, opts.num_left_chunks)
    chunk_size = opts.chunk_size or (chunk,)
    limited = opts.num_left_chunks > 0 and chunk_size[0] > 0
    left = opts.num_left_chunks * chunk_size[0] if limited else -1
    return chunk_size, opts.left_context_frames or (left,)

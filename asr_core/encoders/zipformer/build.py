"""The Zipformer that its options describe."""

from typing import Tuple

from asr_core.encoders.zipformer.encoder import Zipformer2
from asr_core.encoders.zipformer.options import ZipformerOptions
from asr_core.nn.scaling import ScheduledFloat
from asr_core.nn.subsampling import Conv2dSubsampling


def build(opts: ZipformerOptions, feature_dim: int) -> Tuple[Conv2dSubsampling, Zipformer2]:
    """Build front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    encoder = Zipformer2(
        num_encoder_layers=opts.num_encoder_layers,
        downsampling_factor=opts.downsampling_factor,
        feedforward_dim=opts.feedforward_dim,
        num_heads=opts.num_heads,
        encoder_dim=opts.encoder_dim,
        query_head_dim=opts.query_head_dim,
        value_head_dim=opts.value_head_dim,
        pos_head_dim=opts.pos_head_dim,
        encoder_unmasked_dim=opts.encoder_unmasked_dim,
        cnn_module_kernel=opts.cnn_module_kernel,
        pos_dim=opts.pos_dim,
        causal=opts.causal,
        chunk_size=opts.chunk_size,
        left_context_frames=opts.left_context_frames,
    )
    # Strong dropout at first keeps a model that still changes quickly from relying on single
    # channels.
    dropout = ScheduledFloat((0.0, 0.3), (20000.0, 0.1))
    return Conv2dSubsampling(feature_dim, encoder.encoder_dim[0], dropout=dropout), encoder

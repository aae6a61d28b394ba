"""Options and construction of the Zipformer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn

    from asr_core.encoders.zipformer.encoder import Zipformer2

PRESETS: Dict[str, Dict[str, Any]] = {
    "tiny": {
        "num_encoder_layers": "2,2,2,2",
        "downsampling_factor": "1,2,4,2",
        "feedforward_dim": "256",
        "num_heads": "4",
        "encoder_dim": "96,128,128,128",
        "encoder_unmasked_dim": "64,96,96,96",
        "cnn_module_kernel": "31,31,15,31",
        "decoder_dim": 128,
        "joiner_dim": 128,
    },
    "small": {
        "num_encoder_layers": "2,2,2,2,2,2",
        "feedforward_dim": "512,768,768,768,768,768",
        "encoder_dim": "192,256,256,256,256,256",
        "encoder_unmasked_dim": "192",
    },
    "medium": {},
    "large": {
        "num_encoder_layers": "2,2,4,5,4,2",
        "feedforward_dim": "512,768,1536,2048,1536,768",
        "encoder_dim": "192,256,512,768,512,256",
        "encoder_unmasked_dim": "192,192,256,320,256,192",
    },
    "streaming": {"causal": True},
}
_MEDIUM: Dict[str, Any] = {
    "num_encoder_layers": "2,2,3,4,3,2",
    "downsampling_factor": "1,2,4,8,4,2",
    "feedforward_dim": "512,768,1024,1536,1024,768",
    "num_heads": "4,4,4,8,4,4",
    "encoder_dim": "192,256,384,512,384,256",
    "encoder_unmasked_dim": "192,192,256,256,256,192",
    "cnn_module_kernel": "31,31,15,15,15,31",
    "decoder_dim": 512,
    "joiner_dim": 512,
}


@dataclass
class ZipformerOptions:
    """Zipformer. Lists are comma-separated, one entry per encoder stack; a single value is taken for all stacks."""

    model_size: str = option(
        "",
        "Preset of the sizes below: tiny (3.6 M parameters), small (23 M), medium (66 M), large (148 M), "
        "streaming (medium and causal). Options given besides win.",
        choices=["", *PRESETS],
        presets={name: {**_MEDIUM, **sizes} for name, sizes in PRESETS.items()},
    )
    num_encoder_layers: str = option(_MEDIUM["num_encoder_layers"], "Layers of each encoder stack.")
    downsampling_factor: str = option(
        _MEDIUM["downsampling_factor"],
        "Reduction of the frame rate inside each stack, on top of the front end's 2.",
    )
    feedforward_dim: str = option(
        _MEDIUM["feedforward_dim"], "Width of the middle feed-forward module of each layer."
    )
    num_heads: str = option(_MEDIUM["num_heads"], "Attention heads.")
    encoder_dim: str = option(_MEDIUM["encoder_dim"], "Width of each stack.")
    query_head_dim: str = option("32", "Width of queries and keys per head.")
    value_head_dim: str = option("12", "Width of values per head.")
    pos_head_dim: str = option("4", "Width of positional queries per head.")
    pos_dim: int = option(48, "Width of the positional encoding.")
    encoder_unmasked_dim: str = option(_MEDIUM["encoder_unmasked_dim"], "Channels that training never masks.")
    cnn_module_kernel: str = option(_MEDIUM["cnn_module_kernel"], "Kernel of the convolution modules, odd.")


def build(opts: Any, feature_dim: int) -> "Tuple[nn.Module, nn.Module]":
    """Front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    from asr_core.nn.scheduled import ScheduledFloat
    from asr_core.nn.subsampling import Conv2dSubsampling

    encoder = _build_encoder(opts)
    dropout = ScheduledFloat((0.0, 0.3), (20000.0, 0.1))
    return Conv2dSubsampling(feature_dim, int_entries(opts, "encoder_dim")[0], dropout=dropout), encoder


def _build_encoder(opts: Any) -> "Zipformer2":
    from asr_core.encoders.zipformer.encoder import Zipformer2
    from asr_core.nn.scheduled import ScheduledFloat

    stacks = len(int_entries(opts, "downsampling_factor"))
    lists: Dict[str, Tuple[int, ...]] = {}
    for name in (
        "num_encoder_layers",
        "downsampling_factor",
        "feedforward_dim",
        "num_heads",
        "encoder_dim",
        "query_head_dim",
        "value_head_dim",
        "pos_head_dim",
        "encoder_unmasked_dim",
        "cnn_module_kernel",
    ):
        lists[name] = int_entries(opts, name)
        if len(lists[name]) not in (1, stacks):
            flag = name.replace("_", "-")
            raise UserError(
                f"--{flag} has {len(lists[name])} entries, --downsampling-factor {stacks}: give one per stack, or a single one"
            )
        if min(lists[name]) <= 0:
            raise UserError(f"--{name.replace('_', '-')} must be positive")
    try:
        encoder = Zipformer2(
            output_downsampling_factor=2,
            pos_dim=opts.pos_dim,
            dropout=ScheduledFloat((0.0, 0.3), (20000.0, 0.1)),
            warmup_batches=4000.0,
            causal=opts.causal,
            chunk_size=int_entries(opts, "chunk_size"),
            left_context_frames=int_entries(opts, "left_context_frames"),
            **lists,
        )
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    if opts.causal:
        for chunk_size in encoder.chunk_size:
            for left_context_frames in encoder.left_context_frames:
                encoder.check_chunk(chunk_size, left_context_frames)
    return encoder

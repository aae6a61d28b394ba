"""Options and presets of the Zipformer."""

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option

PRESETS: Dict[str, Dict[str, Any]] = {
    "tiny": {
        "num_encoder_layers": (2, 2, 2, 2),
        "downsampling_factor": (1, 2, 4, 2),
        "feedforward_dim": (256,),
        "num_heads": (4,),
        "encoder_dim": (96, 128, 128, 128),
        "encoder_unmasked_dim": (64, 96, 96, 96),
        "cnn_module_kernel": (31, 31, 15, 31),
        "decoder_dim": 128,
        "joiner_dim": 128,
    },
    "small": {
        "num_encoder_layers": (2, 2, 2, 2, 2, 2),
        "feedforward_dim": (512, 768, 768, 768, 768, 768),
        "encoder_dim": (192, 256, 256, 256, 256, 256),
        "encoder_unmasked_dim": (192,),
    },
    "medium": {},
    "large": {
        "num_encoder_layers": (2, 2, 4, 5, 4, 2),
        "feedforward_dim": (512, 768, 1536, 2048, 1536, 768),
        "encoder_dim": (192, 256, 512, 768, 512, 256),
        "encoder_unmasked_dim": (192, 192, 256, 320, 256, 192),
    },
    "streaming": {"causal": True},
}
# Zipformer-M of Yao et al. 2023, table 1: the stacks in the middle run at the lowest frame rate, so
# they can be the widest at the same cost. Their kernels are shorter, since a frame there is up to
# eight times as long.
_MEDIUM: Dict[str, Any] = {
    "num_encoder_layers": (2, 2, 3, 4, 3, 2),
    "downsampling_factor": (1, 2, 4, 8, 4, 2),
    "feedforward_dim": (512, 768, 1024, 1536, 1024, 768),
    "num_heads": (4, 4, 4, 8, 4, 4),
    "encoder_dim": (192, 256, 384, 512, 384, 256),
    "encoder_unmasked_dim": (192, 192, 256, 256, 256, 192),
    "cnn_module_kernel": (31, 31, 15, 15, 15, 31),
    "decoder_dim": 512,
    "joiner_dim": 512,
}


@dataclass(frozen=True)
class ZipformerOptions(ChunkOptions):
    """Zipformer.

    Lists are comma-separated, one entry per encoder stack; a single value is taken for all stacks.
    """

    model_size: str = option(
        "",
        "Preset of the sizes below: tiny (3.6 M parameters), small (23 M), medium (66 M), large "
        "(148 M), streaming (medium and causal). Explicit options win over it.",
        choices=["", *PRESETS],
        presets={name: {**_MEDIUM, **sizes} for name, sizes in PRESETS.items()},
    )
    num_encoder_layers: Tuple[int, ...] = option(
        _MEDIUM["num_encoder_layers"], "Layers of each encoder stack.", at_least=1, at_most=MAX_LAYERS
    )
    downsampling_factor: Tuple[int, ...] = option(
        _MEDIUM["downsampling_factor"],
        "Reduction of the frame rate inside each stack, on top of the front end's 2.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    feedforward_dim: Tuple[int, ...] = option(
        _MEDIUM["feedforward_dim"],
        "Width of the middle feed-forward module of each layer.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    num_heads: Tuple[int, ...] = option(
        _MEDIUM["num_heads"], "Attention heads.", at_least=1, at_most=MAX_LAYERS
    )
    encoder_dim: Tuple[int, ...] = option(
        _MEDIUM["encoder_dim"], "Width of each stack.", at_least=1, at_most=MAX_WIDTH
    )
    query_head_dim: Tuple[int, ...] = option(
        (32,), "Width of queries and keys per head.", at_least=1, at_most=MAX_WIDTH
    )
    value_head_dim: Tuple[int, ...] = option(
        (12,), "Width of values per head.", at_least=1, at_most=MAX_WIDTH
    )
    pos_head_dim: Tuple[int, ...] = option(
        (4,), "Width of positional queries per head.", at_least=1, at_most=MAX_WIDTH
    )
    pos_dim: int = option(48, "Width of the positional encoding.", at_least=1, at_most=MAX_WIDTH)
    encoder_unmasked_dim: Tuple[int, ...] = option(
        _MEDIUM["encoder_unmasked_dim"], "Channels that training never masks.", at_least=1, at_most=MAX_WIDTH
    )
    cnn_module_kernel: Tuple[int, ...] = option(
        _MEDIUM["cnn_module_kernel"],
        "Kernel of the convolution modules, odd.",
        at_least=1,
        at_most=MAX_LAYERS,
    )

"""Options and presets of the Conformer."""

from dataclasses import dataclass
from typing import Any, Dict, Optional

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option

_LARGE: Dict[str, Any] = {
    "num_encoder_layers": 17,
    "encoder_dim": 512,
    "nhead": 8,
    "feedforward_dim": 2048,
    "cnn_module_kernel": 32,
    "front_end": "conv",
    "front_end_channels": 512,
    "layer_order": "mhsa_before_lconv",
    "conv_norm": "batch",
    "per_dim_scale": True,
    "scale_bias": False,
    "abs_pos_emb": True,
    "activation": "silu",
    "norm_eps": 1e-8,
}
_RNNT: Dict[str, Any] = {
    "predictor": "lstm",
    "decoder_dim": 640,
    "predictor_embedding_dim": 128,
    "predictor_cell_clip": 10.0,
    "predictor_noise_start": 0,
    "joiner_dim": 640,
    "joiner_decoder_bias": False,
}
_SMALL = {"num_encoder_layers": 16, "encoder_dim": 144, "nhead": 4, "feedforward_dim": 576}
_MEDIUM = {"num_encoder_layers": 16, "encoder_dim": 256, "nhead": 4, "feedforward_dim": 1024}
_TEST = {
    "num_encoder_layers": 1,
    "encoder_dim": 4,
    "nhead": 2,
    "feedforward_dim": 16,
    "front_end_channels": 4,
}
_HYBRID: Dict[str, Any] = {
    "num_encoder_layers": 12,
    "cnn_module_kernel": 8,
    "front_end": "vgg-stack",
    "per_dim_scale": False,
    "abs_pos_emb": False,
    "norm_eps": 1e-5,
}
PRESETS: Dict[str, Dict[str, Any]] = {
    "test": _TEST,
    "s": _SMALL,
    "m": _MEDIUM,
    "l": {},
    "s-rnnt": {**_SMALL, **_RNNT},
    "m-rnnt": {**_MEDIUM, **_RNNT},
    "l-rnnt": _RNNT,
    "test-rnnt": {**_TEST, **_RNNT, "decoder_dim": 8, "predictor_embedding_dim": 8, "joiner_dim": 8},
    "icefall": {
        "num_encoder_layers": 12,
        "cnn_module_kernel": 31,
        "front_end": "narrow",
        "per_dim_scale": False,
        "scale_bias": True,
        "abs_pos_emb": False,
        "activation": "double_swish",
        "norm_eps": 1e-5,
    },
    "hybrid-small": {
        **_HYBRID,
        "encoder_dim": 256,
        "nhead": 4,
        "feedforward_dim": 1538,
        "dropout": 0.05,
        "position": "none",
        "left_only_attention": True,
    },
    "hybrid-large": {
        **_HYBRID,
        "conv_norm": "layer",
        "embed_dropout": 0.0,
        "position": "key_shift",
        "intermediate_ctc_stacks": (6,),
    },
}


@dataclass(frozen=True)
class ConformerOptions(ChunkOptions):
    """Conformer."""

    model_size: str = option(
        "",
        "Preset of the sizes below: test, s (144 wide), m (256), l (512; 115 M parameters in the "
        "encoder), the same with -rnnt and an LSTM predictor of width 640 (test: 8), icefall (12 "
        "layers, narrow front end, scaled as icefall does), hybrid-small, hybrid-large (12 layers "
        "on --front-end vgg-stack, in widths of hybrid systems: 256, attention to the left only, "
        "no positions; 512, learned key shifts, layer norm in the convolution, CTC after the 6th "
        "layer). Explicit options win over it.",
        choices=["", *PRESETS],
        presets={name: {**_LARGE, **sizes} for name, sizes in PRESETS.items()},
    )
    num_encoder_layers: int = option(_LARGE["num_encoder_layers"], "Layers.", at_least=1, at_most=MAX_LAYERS)
    encoder_dim: int = option(
        _LARGE["encoder_dim"], "Width of the layers, even.", at_least=1, at_most=MAX_WIDTH
    )
    nhead: int = option(_LARGE["nhead"], "Attention heads.", at_least=1, at_most=MAX_LAYERS)
    feedforward_dim: int = option(
        _LARGE["feedforward_dim"], "Width inside the feed-forward modules.", at_least=1, at_most=MAX_WIDTH
    )
    cnn_module_kernel: int = option(
        _LARGE["cnn_module_kernel"],
        "Taps of the convolution modules; an even number looks one further ahead.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    front_end: str = option(
        _LARGE["front_end"],
        "conv: two convolutions of stride 2; narrow: three of 8, 32 and 128 channels, stride 4 in "
        "all; stack: groups of three frames; vgg-stack: the same after three convolutions of 32 "
        "and 64 channels.",
        choices=["conv", "narrow", "stack", "vgg-stack"],
    )
    front_end_channels: int = option(
        _LARGE["front_end_channels"], "Channels of --front-end conv.", at_least=1, at_most=MAX_WIDTH
    )
    dropout: float = option(
        0.1, "Dropout of all modules, unless one of the next four options is given.", at_least=0, below=1
    )
    embed_dropout: Optional[float] = option(None, "Dropout of the front end's output.", at_least=0, below=1)
    ff_dropout: Optional[float] = option(None, "Dropout of the feed-forward modules.", at_least=0, below=1)
    attention_dropout: Optional[float] = option(
        None, "Dropout of the attention's weights and output.", at_least=0, below=1
    )
    conv_dropout: Optional[float] = option(None, "Dropout of the convolution modules.", at_least=0, below=1)
    layer_drop: float = option(
        0.0, "Probability per utterance of leaving a layer out in training.", at_least=0, below=1
    )
    layer_order: str = option(
        _LARGE["layer_order"],
        "Where the convolution stands: after attention, before it, or before the first feed-forward module.",
        choices=["mhsa_before_lconv", "lconv_before_mhsa", "lconv_before_ff"],
    )
    conv_norm: str = option(
        _LARGE["conv_norm"], "Norm in the convolution modules.", choices=["batch", "layer"]
    )
    per_dim_scale: bool = option(_LARGE["per_dim_scale"], "Learn a factor for each dimension of the queries.")
    scale_bias: bool = option(
        _LARGE["scale_bias"],
        "Divide the biases u and v of the attention by sqrt(width per head) as the queries.",
    )
    abs_pos_emb: bool = option(_LARGE["abs_pos_emb"], "Add an encoding of absolute positions to the input.")
    position: str = option(
        "xl",
        "How attention knows where frames stand: xl (encoded offsets, as Transformer-XL), "
        "key_shift (a learned vector for each offset, added to the keys), none.",
        choices=["xl", "key_shift", "none"],
    )
    position_clip: int = option(
        400,
        "Largest offset that --position key_shift distinguishes from larger ones.",
        at_least=1,
        at_most=100_000,
    )
    left_only_attention: bool = option(False, "No frame attends to later ones, with or without --causal.")
    long_skip: bool = option(False, "Add the front end's output to the output of each layer.")
    activation: str = option(_LARGE["activation"], "Activation.", choices=["silu", "double_swish", "relu"])
    norm_eps: float = option(_LARGE["norm_eps"], "Epsilon of all norms.", above=0)
    batch_norm_decay: float = option(
        0.999, "Weight of the past in the running statistics of batch norms.", at_least=0, below=1
    )

    def rate(self, dropout: Optional[float]) -> float:
        """Return the dropout rate of a module from the value of its own option."""
        return self.dropout if dropout is None else dropout


def subsampling_factor(opts: ConformerOptions) -> int:
    """Return the feature frames per frame of encoder output."""
    return 3 if opts.front_end in ("stack", "vgg-stack") else 4

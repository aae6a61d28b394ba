"""Options and construction of the Conformer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn

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
        "intermediate_ctc_stacks": "6",
    },
}


@dataclass
class ConformerOptions:
    """Conformer."""

    model_size: str = option(
        "",
        "Preset of the sizes below: test, s (144 wide), m (256), l (512; 115 M parameters in the encoder), the same with -rnnt and an LSTM "
        "predictor of width 640 (test: 8), icefall (12 layers, narrow front end, scaled as icefall does), hybrid-small, hybrid-large (12 "
        "layers on --front-end vgg-stack, in widths of hybrid systems: 256, attention to the left alone, no positions; 512, learned key "
        "shifts, layer norm in the convolution, CTC after the 6th layer). Options given besides win.",
        choices=["", *PRESETS],
        presets={name: {**_LARGE, **sizes} for name, sizes in PRESETS.items()},
    )
    num_encoder_layers: int = option(_LARGE["num_encoder_layers"], "Layers.")
    encoder_dim: int = option(_LARGE["encoder_dim"], "Width of the layers, even.")
    nhead: int = option(_LARGE["nhead"], "Attention heads.")
    feedforward_dim: int = option(_LARGE["feedforward_dim"], "Width inside the feed-forward modules.")
    cnn_module_kernel: int = option(
        _LARGE["cnn_module_kernel"],
        "Taps of the convolution modules; an even number looks one further ahead.",
    )
    front_end: str = option(
        _LARGE["front_end"],
        "conv: two convolutions of stride 2; narrow: three of 8, 32 and 128 channels, stride 4 in all; stack: groups of three frames; "
        "vgg-stack: the same after three convolutions of 32 and 64 channels.",
        choices=["conv", "narrow", "stack", "vgg-stack"],
    )
    front_end_channels: int = option(_LARGE["front_end_channels"], "Channels of --front-end conv.")
    dropout: float = option(0.1, "Dropout of all modules, where none of the next four options is given.")
    embed_dropout: Optional[float] = option(None, "Dropout of the front end's output.")
    ff_dropout: Optional[float] = option(None, "Dropout of the feed-forward modules.")
    attention_dropout: Optional[float] = option(None, "Dropout of the attention's weights and output.")
    conv_dropout: Optional[float] = option(None, "Dropout of the convolution modules.")
    layer_drop: float = option(0.0, "Probability per utterance of leaving a layer out in training.")
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
        "How attention knows where frames stand: xl (encoded offsets, as Transformer-XL), key_shift (a learned vector for each offset, "
        "added to the keys), none.",
        choices=["xl", "key_shift", "none"],
    )
    position_clip: int = option(400, "Largest offset that --position key_shift tells from larger ones.")
    left_only_attention: bool = option(False, "No frame attends to later ones, with or without --causal.")
    long_skip: bool = option(False, "Add the front end's output to the output of each layer.")
    activation: str = option(_LARGE["activation"], "Activation.", choices=["silu", "double_swish", "relu"])
    norm_eps: float = option(_LARGE["norm_eps"], "Epsilon of all norms.")
    batch_norm_decay: float = option(0.999, "Weight of the past in the running statistics of batch norms.")


def build(opts: Any, feature_dim: int) -> "Tuple[nn.Module, nn.Module]":
    """Front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    from asr_core.encoders.conformer.encoder import Conformer

    _check(opts)
    names = "encoder_dim num_encoder_layers nhead feedforward_dim cnn_module_kernel dropout layer_drop layer_order conv_norm".split()
    names += "per_dim_scale scale_bias abs_pos_emb activation norm_eps batch_norm_decay causal position position_clip".split()
    names += "left_only_attention long_skip ff_dropout attention_dropout conv_dropout".split()
    try:
        encoder_embed = _front_end(opts, feature_dim)
        encoder = Conformer(
            chunk_size=int_entries(opts, "chunk_size"),
            left_context_frames=int_entries(opts, "left_context_frames"),
            frame_factor=encoder_embed.subsampling_factor,
            **{name: getattr(opts, name) for name in names},
        )
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    for module in (*encoder_embed.modules(), *encoder.modules()):
        _initialise(module)
    if opts.causal:
        for chunk_size in encoder.chunk_size:
            for left_context_frames in encoder.left_context_frames:
                encoder.check_chunk(chunk_size, left_context_frames)
    return encoder_embed, encoder


def _check(opts: Any) -> None:
    sizes = (
        "num_encoder_layers",
        "encoder_dim",
        "nhead",
        "feedforward_dim",
        "cnn_module_kernel",
        "front_end_channels",
        "position_clip",
    )
    for name in sizes:
        if getattr(opts, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be positive, got {getattr(opts, name)}")
    if not opts.norm_eps > 0:
        raise UserError(f"--norm-eps must be above 0, got {opts.norm_eps}")
    for name in (
        "dropout",
        "embed_dropout",
        "ff_dropout",
        "attention_dropout",
        "conv_dropout",
        "layer_drop",
        "batch_norm_decay",
    ):
        value = getattr(opts, name)
        if value is not None and not 0.0 <= value < 1.0:
            raise UserError(f"--{name.replace('_', '-')} must be at least 0 and below 1, got {value}")


def subsampling_factor(opts: Any) -> int:
    """Feature frames per frame of encoder output."""
    return 3 if opts.front_end in ("stack", "vgg-stack") else 4


def _front_end(opts: Any, feature_dim: int) -> Any:
    from asr_core.encoders.conformer.modules import ACTIVATIONS
    from asr_core.nn.subsampling4 import (
        Conv2dSubsampling4,
        Conv2dSubsamplingNarrow,
        FrameStacking,
        VggStacking,
    )

    dropout = opts.dropout if opts.embed_dropout is None else opts.embed_dropout
    if opts.front_end == "conv":
        return Conv2dSubsampling4(feature_dim, opts.encoder_dim, opts.front_end_channels, dropout)
    if opts.front_end == "narrow":
        return Conv2dSubsamplingNarrow(feature_dim, opts.encoder_dim, ACTIVATIONS[opts.activation](), dropout)
    stacking = FrameStacking if opts.front_end == "stack" else VggStacking
    return stacking(feature_dim, opts.encoder_dim, dropout=dropout)


def _initialise(module: "nn.Module") -> None:
    """Linear maps start at random with a variance that keeps that of what they map, forward and backward, and without bias."""
    from torch import nn

    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

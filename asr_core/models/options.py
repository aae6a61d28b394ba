"""Options of the model, presets, and the model built from them."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from asr_core.encoders.zipformer import Zipformer2
    from asr_core.models.asr_model import AsrModel
    from asr_core.models.attention_decoder import AttentionDecoder
    from asr_core.models.intermediate_ctc import IntermediateCtc

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
class ModelOptions:
    """Model.

    Lists are comma-separated, one entry per encoder stack; a single value is taken for all stacks.
    """

    model_size: str = option(
        "",
        "Preset of the sizes below: tiny (3.6 M parameters), small (23 M), medium (66 M), large (148 M), "
        "streaming (medium and causal). Options given besides win.",
        choices=["", *PRESETS],
        presets={name: {**_MEDIUM, **sizes} for name, sizes in PRESETS.items()},
    )
    encoder: str = option("zipformer", "Kind of encoder.", choices=["zipformer"])
    num_encoder_layers: str = option(_MEDIUM["num_encoder_layers"], "Layers of each encoder stack.")
    downsampling_factor: str = option(
        _MEDIUM["downsampling_factor"], "Reduction of the frame rate inside each stack, on top of the front end's 2."
    )
    feedforward_dim: str = option(_MEDIUM["feedforward_dim"], "Width of the middle feed-forward module of each layer.")
    num_heads: str = option(_MEDIUM["num_heads"], "Attention heads.")
    encoder_dim: str = option(_MEDIUM["encoder_dim"], "Width of each stack.")
    query_head_dim: str = option("32", "Width of queries and keys per head.")
    value_head_dim: str = option("12", "Width of values per head.")
    pos_head_dim: str = option("4", "Width of positional queries per head.")
    pos_dim: int = option(48, "Width of the positional encoding.")
    encoder_unmasked_dim: str = option(_MEDIUM["encoder_unmasked_dim"], "Channels that training never masks.")
    cnn_module_kernel: str = option(_MEDIUM["cnn_module_kernel"], "Kernel of the convolution modules, odd.")
    decoder_dim: int = option(_MEDIUM["decoder_dim"], "Width of the prediction network.")
    context_size: int = option(2, "Tokens that the prediction network sees; 2 makes a trigram-like model of the history.")
    joiner_dim: int = option(_MEDIUM["joiner_dim"], "Width of the joiner.")
    causal: bool = option(False, "Chunk-causal convolutions, for streaming; changes the parameters.")
    chunk_size: str = option(
        "16,32,64,-1", "Chunk sizes in 50 Hz frames; training draws one per batch, -1 is the whole utterance. One value in decoding."
    )
    left_context_frames: str = option("64,128,256,-1", "Left contexts in 50 Hz frames, as --chunk-size; -1 is unlimited.")
    use_transducer: bool = option(True, "Build the prediction network and the joiner.")
    use_ctc: bool = option(False, "Build a CTC head.")
    use_attention_decoder: bool = option(False, "Build an attention decoder.")
    use_cr_ctc: bool = option(
        False, "Train on two views of each utterance and make their CTC posteriors agree (CR-CTC); needs --use-ctc 1 --enable-spec-aug 0."
    )
    intermediate_ctc_stacks: str = option("", "Encoder stacks with a CTC head of their own in training, e.g. 2,4; from 1.")
    attention_decoder_dim: int = option(512, "Width of the attention decoder's layers.")
    attention_decoder_num_layers: int = option(6, "Layers of the attention decoder.")
    attention_decoder_attention_dim: int = option(512, "Width of the attention decoder's attention.")
    attention_decoder_num_heads: int = option(8, "Heads of the attention decoder's attention.")
    attention_decoder_feedforward_dim: int = option(2048, "Width inside the attention decoder's feed-forward modules.")


def resolve(opts: ModelOptions) -> ModelOptions:
    """``opts`` with the preset filled in where a field still has its default."""
    if opts.model_size not in ("", *PRESETS):
        raise UserError(f"unknown --model-size {opts.model_size!r}; known: {', '.join(PRESETS)}")
    preset = PRESETS.get(opts.model_size, {})
    defaults = {f.name: f.default for f in dataclasses.fields(ModelOptions)}
    return dataclasses.replace(opts, **{k: v for k, v in preset.items() if getattr(opts, k) == defaults[k]})


def _ints(opts: ModelOptions, name: str) -> Tuple[int, ...]:
    text = str(getattr(opts, name))
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{name.replace('_', '-')} {text!r} is not a comma-separated list of integers") from None


def _build_zipformer(opts: ModelOptions) -> "Zipformer2":
    from asr_core.encoders.zipformer import Zipformer2
    from asr_core.nn.scheduled import ScheduledFloat

    stacks = len(_ints(opts, "downsampling_factor"))
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
        lists[name] = _ints(opts, name)
        if len(lists[name]) not in (1, stacks):
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} has {len(lists[name])} entries, --downsampling-factor {stacks}: give one per stack, or a single one")
        if min(lists[name]) <= 0:
            raise UserError(f"--{name.replace('_', '-')} must be positive")
    try:
        encoder = Zipformer2(
            output_downsampling_factor=2,
            pos_dim=opts.pos_dim,
            dropout=ScheduledFloat((0.0, 0.3), (20000.0, 0.1)),
            warmup_batches=4000.0,
            causal=opts.causal,
            chunk_size=_ints(opts, "chunk_size"),
            left_context_frames=_ints(opts, "left_context_frames"),
            **lists,
        )
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    if opts.causal:
        for chunk_size in encoder.chunk_size:
            for left_context_frames in encoder.left_context_frames:
                encoder.check_chunk(chunk_size, left_context_frames)
    return encoder


def _build_attention_decoder(opts: ModelOptions, vocab_size: int, memory_dim: int) -> "AttentionDecoder":
    from asr_core.models.attention_decoder import AttentionDecoder

    sizes = {
        "decoder_dim": opts.attention_decoder_dim,
        "num_decoder_layers": opts.attention_decoder_num_layers,
        "attention_dim": opts.attention_decoder_attention_dim,
        "num_heads": opts.attention_decoder_num_heads,
        "feedforward_dim": opts.attention_decoder_feedforward_dim,
    }
    if min(sizes.values()) < 1:
        raise UserError("the --attention-decoder-... options must be positive")
    if vocab_size < 2:
        raise UserError("an attention decoder needs a vocabulary with a token for the end of the sentence, whose id is 1")
    try:
        return AttentionDecoder(vocab_size, memory_dim=memory_dim, **sizes)
    except ValueError as e:
        raise UserError(f"the options of the attention decoder do not fit together: {e}") from e


def _build_intermediate_ctc(opts: ModelOptions, encoder: Any, vocab_size: int) -> "IntermediateCtc":
    from asr_core.models.intermediate_ctc import IntermediateCtc

    try:
        return IntermediateCtc(_ints(opts, "intermediate_ctc_stacks"), encoder.encoder_dim, vocab_size, encoder.output_downsampling_factor)
    except ValueError as e:
        raise UserError(f"--intermediate-ctc-stacks {opts.intermediate_ctc_stacks}: {e}") from e


ENCODERS: Dict[str, Callable[[ModelOptions], Any]] = {"zipformer": _build_zipformer}


def build_model(opts: ModelOptions, vocab_size: int, feature_dim: int = 80, blank_id: int = 0) -> "AsrModel":
    """Build a model with random weights.

    Args:
      opts: the options; a preset is filled in first.
      vocab_size: number of tokens, blank included.
      feature_dim: features per frame.
      blank_id: the blank's token.

    Raises:
      UserError: options that contradict each other.
    """
    from asr_core.models.asr_model import AsrModel
    from asr_core.models.joiner import Joiner
    from asr_core.nn.scheduled import ScheduledFloat
    from asr_core.nn.subsampling import Conv2dSubsampling
    from asr_core.predictors import StatelessPredictor

    opts = resolve(opts)
    if not (opts.use_transducer or opts.use_ctc):
        raise UserError("nothing to train: give --use-transducer 1 or --use-ctc 1")
    if opts.encoder not in ENCODERS:
        raise UserError(f"unknown --encoder {opts.encoder!r}; known: {', '.join(ENCODERS)}")
    encoder = ENCODERS[opts.encoder](opts)
    encoder_dim = encoder.output_dim
    decoder = joiner = None
    if opts.use_transducer:
        if opts.decoder_dim % 4 != 0 or opts.context_size < 1:
            raise UserError("--decoder-dim must be a multiple of 4 and --context-size at least 1")
        decoder = StatelessPredictor(vocab_size, opts.decoder_dim, blank_id, opts.context_size)
        joiner = Joiner(encoder_dim, opts.decoder_dim, opts.joiner_dim, vocab_size)
    return AsrModel(
        encoder_embed=Conv2dSubsampling(feature_dim, _ints(opts, "encoder_dim")[0], dropout=ScheduledFloat((0.0, 0.3), (20000.0, 0.1))),
        encoder=encoder,
        decoder=decoder,
        joiner=joiner,
        encoder_dim=encoder_dim,
        decoder_dim=opts.decoder_dim,
        vocab_size=vocab_size,
        use_transducer=opts.use_transducer,
        use_ctc=opts.use_ctc,
        attention_decoder=_build_attention_decoder(opts, vocab_size, encoder_dim) if opts.use_attention_decoder else None,
        intermediate_ctc=_build_intermediate_ctc(opts, encoder, vocab_size) if opts.intermediate_ctc_stacks else None,
    )

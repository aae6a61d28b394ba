"""Options and construction of the first, streaming Zipformer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Tuple

from asr_core.encoders.chunk_options import decoding_chunk
from asr_core.utils.errors import UserError
from asr_core.utils.options import int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn

_LISTS = (
    "num_encoder_layers",
    "feedforward_dims",
    "nhead",
    "encoder_dims",
    "attention_dims",
    "encoder_unmasked_dims",
    "zipformer_downsampling_factors",
    "cnn_module_kernels",
)


@dataclass
class Zipformer1Options:
    """The first, streaming Zipformer. Lists are comma-separated, one entry per stack; a single value is taken for all stacks."""

    num_encoder_layers: str = option("2,4,3,2,4", "Layers of each stack.")
    feedforward_dims: str = option("1024,1024,2048,2048,1024", "Width inside the feed-forward modules.")
    nhead: str = option("8,8,8,8,8", "Attention heads.")
    encoder_dims: str = option(
        "384,384,384,384,384", "Width of each stack; it may only grow from stack to stack."
    )
    attention_dims: str = option(
        "192,192,192,192,192", "Width of the queries of all heads; values have half of it."
    )
    encoder_unmasked_dims: str = option("256,256,256,256,256", "Channels that training never masks.")
    zipformer_downsampling_factors: str = option(
        "1,2,4,8,2",
        "Reduction of the frame rate inside each stack, on top of the front end's 2; its length is the number of stacks.",
    )
    cnn_module_kernels: str = option(
        "31,31,31,31,31", "Taps of the convolutions, which see this frame and those before it."
    )
    short_chunk_size: int = option(
        50,
        "Training sees either whole utterances or chunks of at most this, in 50 Hz frames, rounded down to the lowest frame rate.",
    )
    num_left_chunks: int = option(
        4,
        "Chunks of left context: in training, and in decoding unless --left-context-frames is given; -1 for all.",
    )
    decode_chunk_len: int = option(
        32, "Chunk in decoding and validation, in feature frames: 32 are 320 ms. See --chunk-size."
    )
    causal: bool = option(True, "This encoder is always causal: nothing else is possible.")
    chunk_size: str = option(
        "",
        "Chunk in decoding and validation, in 50 Hz frames, -1 for the whole utterance; default: half of --decode-chunk-len.",
    )
    left_context_frames: str = option(
        "", "Left context in decoding, in 50 Hz frames, -1 for all; default: --num-left-chunks chunks."
    )


def build(opts: Any, feature_dim: int) -> "Tuple[nn.Module, nn.Module]":
    """Front end and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    from asr_core.encoders.zipformer1.encoder import Zipformer
    from asr_core.encoders.zipformer1.subsampling import Conv2dSubsamplingZipformer1

    if not opts.causal:
        raise UserError("--causal 0: this encoder is always causal, leave it out")
    chunk, _ = decoding_chunk(opts.decode_chunk_len, opts.num_left_chunks)
    chunk_size = int_entries(opts, "chunk_size") if opts.chunk_size else (chunk,)
    left = opts.num_left_chunks * chunk_size[0] if min(opts.num_left_chunks, chunk_size[0]) > 0 else -1
    left_context_frames = int_entries(opts, "left_context_frames") if opts.left_context_frames else (left,)
    lists = _lists(opts)
    try:
        encoder = Zipformer(
            **lists,
            short_chunk_size=opts.short_chunk_size,
            num_left_chunks=opts.num_left_chunks,
            chunk_size=chunk_size,
            left_context_frames=left_context_frames,
        )
        encoder_embed = Conv2dSubsamplingZipformer1(feature_dim, lists["encoder_dims"][0])
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    for size in chunk_size:
        encoder.check_chunk(size, -1)
    return encoder_embed, encoder


def _lists(opts: Any) -> Dict[str, Tuple[int, ...]]:
    """The options with one value per stack."""
    stacks = len(int_entries(opts, "zipformer_downsampling_factors"))
    lists: Dict[str, Tuple[int, ...]] = {}
    for name in _LISTS:
        values, flag = int_entries(opts, name), name.replace("_", "-")
        if len(values) not in (1, stacks):
            raise UserError(
                f"--{flag} has {len(values)} entries, --zipformer-downsampling-factors {stacks}: give one per stack, or one"
            )
        if min(values) <= 0:
            raise UserError(f"--{flag} must be positive")
        lists[name] = values if len(values) == stacks else values * stacks
    return lists

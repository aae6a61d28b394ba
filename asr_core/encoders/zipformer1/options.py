"""Options of the first, streaming Zipformer."""

from dataclasses import dataclass
from typing import Tuple

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option


@dataclass(frozen=True)
class Zipformer1Options(ChunkOptions):
    """The first, streaming Zipformer.

    Lists are comma-separated, one entry per stack; a single value is taken for all stacks.
    """

    num_encoder_layers: Tuple[int, ...] = option(
        (2, 4, 3, 2, 4), "Layers of each stack.", at_least=1, at_most=MAX_LAYERS
    )
    feedforward_dims: Tuple[int, ...] = option(
        (1024, 1024, 2048, 2048, 1024),
        "Width inside the feed-forward modules.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    nhead: Tuple[int, ...] = option((8, 8, 8, 8, 8), "Attention heads.", at_least=1, at_most=MAX_LAYERS)
    encoder_dims: Tuple[int, ...] = option(
        (384, 384, 384, 384, 384),
        "Width of each stack; it may only grow from stack to stack.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    attention_dims: Tuple[int, ...] = option(
        (192, 192, 192, 192, 192),
        "Width of the queries of all heads; values have half of it.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    encoder_unmasked_dims: Tuple[int, ...] = option(
        (256, 256, 256, 256, 256), "Channels that training never masks.", at_least=1, at_most=MAX_WIDTH
    )
    zipformer_downsampling_factors: Tuple[int, ...] = option(
        (1, 2, 4, 8, 2),
        "Reduction of the frame rate inside each stack, on top of the front end's 2; its length is "
        "the number of stacks.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    cnn_module_kernels: Tuple[int, ...] = option(
        (31, 31, 31, 31, 31),
        "Taps of the convolutions, which see this frame and those before it.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    short_chunk_size: int = option(
        50,
        "Training sees either whole utterances or chunks of at most this, in 50 Hz frames, rounded "
        "down to the lowest frame rate.",
        at_least=1,
        at_most=100_000,
    )
    num_left_chunks: int = option(
        4,
        "Chunks of left context: in training, and in decoding unless --left-context-frames is "
        "given; -1 for all.",
        at_least=1,
        at_most=100_000,
        unless=-1,
    )
    decode_chunk_len: int = option(
        32,
        "Chunk in decoding and validation, in feature frames: 32 are 320 ms. See --chunk-size.",
        at_least=2,
        at_most=100_000,
    )
    causal: bool = option(True, "This encoder is always causal: nothing else is possible.")
    chunk_size: Tuple[int, ...] = option(
        (),
        "Chunk in decoding and validation, in 50 Hz frames, -1 for the whole utterance; default: "
        "half of --decode-chunk-len.",
        at_least=1,
        at_most=100_000,
        unless=-1,
    )
    left_context_frames: Tuple[int, ...] = option(
        (),
        "Left context in decoding, in 50 Hz frames, -1 for all; default: --num-left-chunks chunks.",
        at_least=0,
        at_most=100_000,
        unless=-1,
    )

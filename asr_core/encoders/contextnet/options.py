"""Options of ContextNet."""

import math
from dataclasses import dataclass
from typing import Dict, Tuple

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.encoders.entries import expand_entries
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH
from asr_core.utils.options import option

_BLOCKS = 23  # C0 to C22 of the paper's table 1


def _per_block(value: int, **others: int) -> Tuple[int, ...]:
    """Return ``value`` for each block but those named in ``others``."""
    return tuple(others.get(f"c{i}", value) for i in range(_BLOCKS))


@dataclass(frozen=True)
class ContextNetOptions(ChunkOptions):
    """ContextNet.

    Lists are comma-separated, one entry per block; a single value is taken for all blocks.
    """

    alpha: float = option(
        0.5, "Factor on --block-channels; 0.5, 1 and 2 are ContextNet-S, -M and -L.", above=0, at_most=100
    )
    block_channels: Tuple[int, ...] = option(
        (256,) * 11 + (512,) * 11 + (640,),
        "Width of each block before --alpha; the last one is the encoder's.",
        at_least=1,
        at_most=MAX_WIDTH,
    )
    block_layers: Tuple[int, ...] = option(
        _per_block(5, c0=1, c22=1),
        "Convolutions of each block; blocks of one have no residual connection.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    block_strides: Tuple[int, ...] = option(
        _per_block(1, c3=2, c7=2, c14=2),
        "Strides of the blocks; an output frame is their product (2, 4, 8 or 16) times 10 ms.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    kernel_size: int = option(5, "Kernel of the convolutions, odd.", at_least=1, at_most=MAX_LAYERS)
    residual_kernel: int = option(
        5,
        "Kernel of the convolution in the residual connections: --kernel-size, or 1 for a projection.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    se_ratio: int = option(
        8, "How much narrower the squeeze-and-excitation modules are inside.", at_least=1, at_most=MAX_LAYERS
    )
    padding: str = option(
        "causal",
        "Frames that convolutions see: the past (causal) or both sides equally (same).",
        choices=["causal", "same"],
    )
    causal: bool = option(
        False,
        "For streaming: squeeze-and-excitation takes means over the past instead of the whole "
        "utterance; needs --padding causal.",
    )


def block_lists(opts: ContextNetOptions) -> Dict[str, Tuple[int, ...]]:
    """Return channels, layers and strides with one entry for each block.

    Raises:
      UserError: they are not equally long.
    """
    lists = {
        "block_channels": opts.block_channels,
        "block_layers": opts.block_layers,
        "block_strides": opts.block_strides,
    }
    count = max(map(len, lists.values()))
    return {name: expand_entries(name, values, count, "block") for name, values in lists.items()}


def subsampling_factor(opts: ContextNetOptions) -> int:
    """Return the feature frames per frame of encoder output."""
    return math.prod(block_lists(opts)["block_strides"])

"""Options and construction of ContextNet."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from torch import nn

_FACTORS = (2, 4, 8, 16)
_BLOCKS = 23  # C0 to C22


def _list(value: int, **others: int) -> str:
    """``value`` for each block, but for the blocks named in ``others``."""
    return ",".join(str(others.get(f"c{i}", value)) for i in range(_BLOCKS))


@dataclass
class ContextNetOptions:
    """ContextNet. Lists are comma-separated, one entry per block; a single value is taken for all blocks."""

    alpha: float = option(0.5, "Factor on --block-channels; 0.5, 1 and 2 are ContextNet-S, -M and -L.")
    block_channels: str = option(
        ",".join(["256"] * 11 + ["512"] * 11 + ["640"]),
        "Width of each block before --alpha; the last one is the encoder's.",
    )
    block_layers: str = option(
        _list(5, c0=1, c22=1), "Convolutions of each block; blocks of one have no residual connection."
    )
    block_strides: str = option(
        _list(1, c3=2, c7=2, c14=2),
        "Strides of the blocks; an output frame is their product (2, 4, 8 or 16) times 10 ms.",
    )
    kernel_size: int = option(5, "Kernel of the convolutions, odd.")
    residual_kernel: int = option(
        5, "Kernel of the convolution in the residual connections: --kernel-size, or 1 for a projection."
    )
    se_ratio: int = option(8, "How much narrower the squeeze-and-excitation modules are inside.")
    padding: str = option(
        "causal",
        "What convolutions see: the past (causal) or both sides alike (same).",
        choices=["causal", "same"],
    )
    causal: bool = option(
        False,
        "For streaming: squeeze-and-excitation takes means over the past in place of the whole utterance; needs --padding causal.",
    )


def subsampling_factor(opts: Any) -> int:
    """Feature frames per frame of encoder output."""
    return math.prod(_per_block(opts)["block_strides"])


def _per_block(opts: Any) -> Dict[str, List[int]]:
    """The lists of options, one entry for each block.

    Raises:
      UserError: they are not equally long.
    """
    lists = {name: int_entries(opts, name) for name in ("block_channels", "block_layers", "block_strides")}
    blocks = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, blocks):
            raise UserError(
                f"--{name.replace('_', '-')} has {len(values)} entries, but there are {blocks} blocks: one for each, or one for all"
            )
    return {name: list(values) * (blocks if len(values) == 1 else 1) for name, values in lists.items()}


def build(opts: Any, feature_dim: int) -> "Tuple[nn.Module, nn.Module]":
    """Front end (none) and encoder, see :class:`asr_core.encoders.registry.EncoderSpec`."""
    from asr_core.encoders.contextnet.encoder import ContextNet
    from asr_core.encoders.contextnet.front_end import PassThrough

    channels, layers, strides = _per_block(opts).values()
    if math.prod(strides) not in _FACTORS:
        raise UserError(f"the product of --block-strides must be 2, 4, 8 or 16, not {math.prod(strides)}")
    try:
        encoder = ContextNet(
            feature_dim,
            [round(c * opts.alpha) for c in channels],
            layers,
            strides,
            kernel_size=opts.kernel_size,
            residual_kernel=opts.residual_kernel,
            se_ratio=opts.se_ratio,
            padding=opts.padding,
            causal=opts.causal,
            chunk_size=int_entries(opts, "chunk_size"),
            left_context_frames=int_entries(opts, "left_context_frames"),
        )
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    if opts.causal:
        for chunk_size in encoder.chunk_size:
            encoder.check_chunk(chunk_size, -1)
    return PassThrough(), encoder

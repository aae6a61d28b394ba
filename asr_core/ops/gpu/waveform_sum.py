"""Sums of the waveforms of utterances, each at its place and level, in one pass over memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # samples of a program


@triton.jit(do_not_specialize=["width", "depth"])
def _sum_of_waveforms(
    flat_at, gains_at, table_at, layers_at, sizes_at, out_at, width, depth, BLOCK: tl.constexpr
):
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < tl.load(sizes_at + row)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(0, depth):
        m = tl.load(layers_at + row.to(tl.int64) * depth + k)  # int64, as all of the tables
        entry = table_at + tl.maximum(m, 0) * 3
        size = tl.where(m >= 0, tl.load(entry + 1), 0)
        place = at - tl.load(entry + 2)
        inside = here & (place >= 0) & (place < size)
        x = tl.load(flat_at + tl.load(entry) + place, inside, other=0.0)
        total += tl.load(gains_at + tl.maximum(m, 0)) * x
    tl.store(out_at + row.to(tl.int64) * width + at, total, at < width)


def sum_of_waveforms(
    flat: Tensor, gains: Tensor, table: Tensor, layers: Tensor, sizes: Tensor, width: int
) -> Tensor:
    """Return what :func:`asr_core.ops.waveform_sum.sum_of_waveforms` describes."""
    out = torch.empty(len(layers), width, dtype=torch.float32, device=flat.device)
    grid = (triton.cdiv(width, _BLOCK), len(layers))
    if out.numel():
        _sum_of_waveforms[grid](
            flat, gains, table, layers, sizes, out, width, layers.shape[1], BLOCK=_BLOCK, num_warps=4
        )
    return out

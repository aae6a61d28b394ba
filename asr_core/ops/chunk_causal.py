"""The chunk-causal convolution of the Zipformer as one operation, where kernels for it exist."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced

gpu_kernels = gpu.deferred("chunk_causal")


class _ChunkCausalConv1d(torch.autograd.Function):
    """Keeps its inputs and the convolution within chunks, (T, N, C)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, chunk: int, lens: Optional[Tensor], *parameters: Tensor) -> Tensor:
        x = x.contiguous()
        y, z = gpu_kernels.forward(x, parameters, chunk, lens)
        causal_weight, _, weight, _, edges = parameters
        ctx.save_for_backward(x, z, causal_weight, weight, edges, lens)
        ctx.chunk = chunk
        return y

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, z, causal_weight, weight, edges, lens = ctx.saved_tensors
        dx, *grads = gpu_kernels.backward(x, z, dy, (causal_weight, weight, edges), ctx.chunk, lens)
        return (dx, None, None, *grads)


def usable(x: Tensor, edges: Tensor) -> bool:
    """Return whether there are kernels for x (T, N, C) and parameters like edges (2, C, K)."""
    return gpu.usable(x, edges) and not is_traced()


def chunk_causal_conv1d(
    x: Tensor,
    causal_weight: Tensor,
    causal_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    edges: Tensor,
    chunk: int,
    lens: Optional[Tensor],
) -> Tensor:
    """Add a causal convolution over all frames and a scaled one within each chunk.

    The scale is ``1 + edges[0, :, f] + edges[1, :, f - end + K]`` at frame f of a chunk, where each
    of the last two terms is there only if its index is one of K, and ``end`` is the smaller of
    ``chunk`` and the sequence's length.

    Args:
      x: (T, N, C), for which :func:`usable` is true.
      causal_weight: (C, 1, (K + 1) / 2), K odd; its last tap is the current frame.
      causal_bias, bias: (C,).
      weight: (C, 1, K).
      edges: (2, C, K).
      chunk: frames per chunk, above 0.
      lens: (N,) int64 frames of each sequence; None if none is shorter than a chunk.

    Returns:
      (T, N, C)
    """
    return _ChunkCausalConv1d.apply(x, chunk, lens, causal_weight, causal_bias, weight, bias, edges)

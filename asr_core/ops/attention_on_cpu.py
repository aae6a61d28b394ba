"""The softmax of attention over content and position scores by fused kernels for the CPU."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import HAS_NUMBA

if HAS_NUMBA:
    from asr_core.ops.cpu import attention as kernels

_GRAIN = 16384  # scores worth a thread


def _kernel_args(
    weights: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]
) -> "kernels.Softmax":
    """Return the parameters that both directions share; weights (H, N, T, S)."""
    if mask is not None:
        mask = mask[(None,) * (3 - mask.dim())].contiguous()  # (N or 1, T or 1, S)
    return kernels.Softmax(
        scores=0,
        p=0 if p is None else p,
        pos=pos.transpose(1, 2).contiguous(),
        mask=0 if mask is None else mask,
        weights=weights,
        grad=0,
        first=0,
        dscores=0,
        dp=0,
        dpos=0,
        N=weights.size(1),
        T=weights.size(2),
        S=weights.size(3),
        P=0 if p is None else p.size(3),
        L=pos.size(1),
        NM=1 if mask is None else mask.size(0),
        TM=1 if mask is None else mask.size(1),
    )


def softmax_on_cpu(scores: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Return softmax over keys of scores (H, N, T, S) plus position scores."""
    heads, batch, queries, keys = scores.shape
    weights = torch.empty_like(scores)
    args = _kernel_args(weights, p, pos, mask)._replace(scores=scores)
    kernels.positions_and_softmax(heads * batch * queries, max(1, _GRAIN // keys), args)
    return weights


def softmax_backward_on_cpu(
    weights: Tensor,
    grad: Tensor,
    grad_first: Optional[Tensor],
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Return the gradients of the scores (H, N, T, S), of p (H, N, T, P) and of pos (H, L, P)."""
    heads, batch, queries, keys = weights.shape
    width = 0 if p is None else p.size(3)
    g, dp = torch.empty_like(weights), weights.new_empty(heads, batch, queries, width)
    # a sum per utterance, so that threads share none
    dpos = weights.new_zeros(heads, batch, width, pos.size(1))
    args = _kernel_args(weights, p, pos, mask)._replace(
        grad=grad.contiguous(),
        first=0 if grad_first is None else grad_first.contiguous(),
        dscores=g,
        dp=dp,
        dpos=dpos,
    )
    kernels.positions_and_softmax_backward(heads * batch, max(1, _GRAIN // (queries * keys)), args)
    return (g, None, None) if p is None else (g, dp, dpos.sum(dim=1).transpose(1, 2))

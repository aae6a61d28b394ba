"""Attention weights with relative positions, and the softmax that keeps only its output."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import usable

MASKED_SCORE = -1000.0  # finite, so that a row without any valid key stays finite


def relative_shift(scores: Tensor, num_keys: int) -> Tensor:
    """View of position scores (..., T, L) by offset as scores (..., T, num_keys) by key.

    Entry (t, s) of the result is entry (t, T - 1 - t + s) of ``scores``, with ``L = T - 1 + num_keys``.
    The input's last two axes must be contiguous.
    """
    num_heads, batch_size, num_queries, num_offsets = scores.shape
    if torch.jit.is_tracing():
        offsets = torch.arange(num_queries - 1, -1, -1, device=scores.device).unsqueeze(1) + torch.arange(
            num_keys, device=scores.device
        )
        return scores.gather(3, offsets.expand(num_heads, batch_size, num_queries, num_keys))
    return scores.as_strided(
        (num_heads, batch_size, num_queries, num_keys),
        (scores.stride(0), scores.stride(1), num_offsets - 1, 1),
        storage_offset=scores.storage_offset() + num_queries - 1,
    )


def attention_weights_plain(
    q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]
) -> Tensor:
    """The formula of :func:`attention_weights` in plain operations (for scripting and tracing)."""
    scores = torch.matmul(q, k.transpose(2, 3))
    if p is not None:
        scores = scores + relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
    if mask is not None:
        scores = scores.masked_fill(mask, -1000.0)  # MASKED_SCORE, but scripts see no globals
    return scores.softmax(dim=-1)


class _AttentionWeights(torch.autograd.Function):
    """Keeps its inputs and the weights, no scores; the first head's weights are returned apart, for a gradient of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        p: Optional[Tensor],
        pos: Tensor,
        mask: Optional[Tensor],
        limit: float,
        penalty: float,
    ) -> Tuple[Tensor, Tensor]:
        q, k, p = q.contiguous(), k.contiguous(), None if p is None else p.contiguous()
        scores = torch.matmul(q, k.transpose(2, 3))
        excess = None
        if penalty == 0.0 and usable(q, k, p, pos):
            weights = _softmax_on_cpu(scores, p, pos, mask)
        else:
            if p is not None:
                scores += relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
            if penalty > 0.0:
                excess = (scores > limit).to(torch.int8) - (scores < -limit).to(torch.int8)
            if mask is not None:
                scores.masked_fill_(mask, MASKED_SCORE)
            weights = scores.softmax(
                dim=-1, dtype=torch.float32 if scores.dtype == torch.float16 else None
            ).to(scores.dtype)
        ctx.save_for_backward(q, k, p, pos, mask, excess, weights)
        ctx.penalty = penalty
        ctx.set_materialize_grads(False)
        return weights, weights[:1].clone()

    @staticmethod
    def backward(
        ctx: Any, grad: Optional[Tensor], grad_first: Optional[Tensor]
    ) -> Tuple[Optional[Tensor], ...]:
        q, k, p, pos, mask, excess, weights = ctx.saved_tensors
        if grad is None:
            if grad_first is None:
                return (None,) * 7
            grad = torch.zeros_like(weights)
        if excess is None and usable(weights, grad, grad_first):
            g, dp, dpos = _softmax_backward_on_cpu(weights, grad, grad_first, p, pos, mask)
        else:
            g = _softmax_backward(weights, grad, grad_first, mask)
            if excess is not None:
                g.add_(excess, alpha=ctx.penalty)
            dp, dpos = _positions_backward(g, p, pos)
        return torch.matmul(g, k), torch.matmul(g.transpose(2, 3), q), dp, dpos, None, None, None


def _softmax_backward(
    weights: Tensor, grad: Tensor, grad_first: Optional[Tensor], mask: Optional[Tensor]
) -> Tensor:
    if grad_first is not None:
        grad = torch.cat([grad[:1] + grad_first, grad[1:]])
    w, g = (
        (weights.float(), grad.float())
        if weights.dtype in (torch.float16, torch.bfloat16)
        else (weights, grad)
    )
    g = torch.ops.aten._softmax_backward_data(g, w, -1, w.dtype)
    if mask is not None:
        g.masked_fill_(mask, 0.0)
    return g.to(weights.dtype)


def _positions_backward(
    g: Tensor, p: Optional[Tensor], pos: Tensor
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    if p is None:
        return None, None
    by_offset = g.new_zeros((*g.shape[:3], pos.shape[1]))
    relative_shift(by_offset, g.size(3)).copy_(g)
    dp = torch.matmul(by_offset, pos.unsqueeze(1))
    return dp, torch.matmul(by_offset.flatten(1, 2).transpose(1, 2), p.flatten(1, 2))


def _mask_of_kernels(mask: Optional[Tensor]) -> Tuple[Any, int, int]:
    """The mask, made (N or 1, T or 1, S), and its first two sizes."""
    if mask is None:
        return 0, 1, 1
    mask = mask[(None,) * (3 - mask.dim())].contiguous()
    return mask, mask.size(0), mask.size(1)


def _softmax_on_cpu(scores: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]) -> Tensor:
    from asr_core.ops.cpu import attention as kernels

    heads, batch, queries, keys = scores.shape
    by_channel = pos.transpose(1, 2).contiguous()
    bytes_, *mask_sizes = _mask_of_kernels(mask)
    out = torch.empty_like(scores)
    sizes = [batch, queries, keys, 0 if p is None else p.size(3), pos.size(1), *mask_sizes]
    args = [scores, scores if p is None else p, by_channel, bytes_, out, *sizes]
    kernels.positions_and_softmax(heads * batch * queries, max(1, 16384 // keys), args)
    return out


def _softmax_backward_on_cpu(
    weights: Tensor,
    grad: Tensor,
    grad_first: Optional[Tensor],
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    from asr_core.ops.cpu import attention as kernels

    heads, batch, queries, keys = weights.shape
    width = 0 if p is None else p.size(3)
    by_channel = pos.transpose(1, 2).contiguous()
    bytes_, *mask_sizes = _mask_of_kernels(mask)
    grad, first = grad.contiguous(), 0 if grad_first is None else grad_first.contiguous()
    g, dp = torch.empty_like(weights), weights.new_empty(heads, batch, queries, width)
    dpos = weights.new_zeros(heads, batch, width, pos.size(1))
    sizes = [batch, queries, keys, width, pos.size(1), *mask_sizes]
    args = [weights, grad, first, weights if p is None else p, by_channel, bytes_, g, dp, dpos, *sizes]
    kernels.positions_and_softmax_backward(heads * batch, max(1, 16384 // (queries * keys)), args)
    return (g, None, None) if p is None else (g, dp, dpos.sum(dim=1).transpose(1, 2))


def attention_weights(
    q: Tensor,
    k: Tensor,
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float = 25.0,
    penalty: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    """Softmax over keys of ``q . k + p . pos``.

    Args:
      q: (H, N, T, D) queries.
      k: (H, N, S, D) keys, S >= T; the last query stands at the last key.
      p: (H, N, T, P) positional queries, or None to leave positions out.
      pos: (H, T - 1 + S, P) projected positional encoding, by offset.
      mask: boolean (N or 1, T or 1, S), True where a key must not be seen. None: all are seen.
      limit: scores whose magnitude exceeds it are penalised ...
      penalty: ... by so much gradient; 0 for none.

    Returns:
      The weights (H, N, T, S), and those of the first head again, (1, N, T, S): what uses one head alone should take these.
    """
    return _AttentionWeights.apply(q, k, p, pos, mask, limit, penalty)

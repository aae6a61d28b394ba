"""Attention weights with relative positions, and the softmax that keeps only its output."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

MASKED_SCORE = -1000.0  # finite, so that a row without any valid key stays finite


def relative_shift(scores: Tensor, num_keys: int) -> Tensor:
    """View of position scores (..., T, L) by offset as scores (..., T, num_keys) by key.

    Entry (t, s) of the result is entry (t, T - 1 - t + s) of ``scores``, with ``L = T - 1 + num_keys``.
    The input's last two axes must be contiguous.
    """
    num_heads, batch_size, num_queries, num_offsets = scores.shape
    if torch.jit.is_tracing():
        offsets = torch.arange(num_queries - 1, -1, -1, device=scores.device).unsqueeze(1) + torch.arange(num_keys, device=scores.device)
        return scores.gather(3, offsets.expand(num_heads, batch_size, num_queries, num_keys))
    return scores.as_strided(
        (num_heads, batch_size, num_queries, num_keys),
        (scores.stride(0), scores.stride(1), num_offsets - 1, 1),
        storage_offset=scores.storage_offset() + num_queries - 1,
    )


def attention_weights_plain(q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]) -> Tensor:
    """The formula of :func:`attention_weights` in plain operations (for scripting and tracing)."""
    scores = torch.matmul(q, k.transpose(2, 3))
    if p is not None:
        scores = scores + relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
    if mask is not None:
        scores = scores.masked_fill(mask, -1000.0)  # MASKED_SCORE, but scripts see no globals
    return scores.softmax(dim=-1)


class _AttentionWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor], limit: float, penalty: float
    ) -> Tensor:
        q, k = q.contiguous(), k.contiguous()
        scores = torch.matmul(q, k.transpose(2, 3))
        if p is not None:
            p = p.contiguous()
            scores += relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
        excess = None
        if penalty > 0.0:
            excess = (scores > limit).to(torch.int8) - (scores < -limit).to(torch.int8)
        if mask is not None:
            scores.masked_fill_(mask, MASKED_SCORE)
        weights = scores.softmax(dim=-1, dtype=torch.float32 if scores.dtype == torch.float16 else None).to(scores.dtype)
        ctx.save_for_backward(q, k, p, pos, mask, excess, weights)
        ctx.penalty = penalty
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        q, k, p, pos, mask, excess, weights = ctx.saved_tensors
        w, g = (weights.float(), grad.float()) if weights.dtype in (torch.float16, torch.bfloat16) else (weights, grad)
        g = torch.ops.aten._softmax_backward_data(g, w, -1, w.dtype)
        if mask is not None:
            g.masked_fill_(mask, 0.0)
        if excess is not None:
            g.add_(excess, alpha=ctx.penalty)
        g = g.to(q.dtype)
        dq, dk = torch.matmul(g, k), torch.matmul(g.transpose(2, 3), q)
        if p is None:
            return dq, dk, None, None, None, None, None
        by_offset = g.new_zeros((*g.shape[:3], pos.shape[1]))
        relative_shift(by_offset, k.size(2)).copy_(g)
        dp = torch.matmul(by_offset, pos.unsqueeze(1))
        dpos = torch.matmul(by_offset.flatten(1, 2).transpose(1, 2), p.flatten(1, 2))
        return dq, dk, dp, dpos, None, None, None


def attention_weights(
    q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor], limit: float = 25.0, penalty: float = 0.0
) -> Tensor:
    """Softmax over keys of ``q . k + p . pos``.

    Args:
      q: (H, N, T, D) queries.
      k: (H, N, S, D) keys, S >= T; the last query stands at the last key.
      p: (H, N, T, P) positional queries, or None to leave positions out.
      pos: (H, T - 1 + S, P) projected positional encoding, by offset.
      mask: boolean, broadcasts with (H, N, T, S); True where a key must not be seen. None: all are seen.
      limit: scores whose magnitude exceeds it are penalised ...
      penalty: ... by so much gradient; 0 for none.

    Returns:
      (H, N, T, S)
    """
    return _AttentionWeights.apply(q, k, p, pos, mask, limit, penalty)

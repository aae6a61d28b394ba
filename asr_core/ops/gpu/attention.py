"""Attention weights with relative positions, and their gradients.

The forward pass goes twice over the keys of a block of queries, first for the maximum and the sum
of the softmax, then for the weights: the scores are computed anew, which costs less than writing
them. A score's position part is a sum over the few channels of the positional queries, whose
factors lie at ``T - 1 - t + s``: neighbouring queries read nearly the same addresses.

The backward pass writes the gradient of the scores once, in the weights' type. The gradients of
keys and positions, which are sums over queries, have kernels of their own, so that no two programs
add to one address; those of positions are summed over the batch afterwards.
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu.products import block_width, precision, product

MAX_POSITION_WIDTH = 16  # wider positional queries are left to matrix products
_QUERIES = 16  # queries of a program
_KEYS = 64  # keys that it takes at a time; keys, or offsets, of a program that sums over queries
_SUMMED = 32  # queries that such a program takes at a time
_WARPS = 4
# arguments that differ from batch to batch: no kernel is compiled anew for their values
_VARYING = ["N", "T", "S", "L", "mask_n", "mask_t"]


@triton.jit
def _load_rows(at, stride, rows, num_rows, width, WIDTH: tl.constexpr):
    """Return rows (R, WIDTH) of a matrix whose columns are adjacent, zero beyond its ends."""
    d = tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (d < width)[None, :]
    return tl.load(at + rows.to(tl.int64)[:, None] * stride + d[None, :], inside, other=0.0)


@triton.jit
def _positions(pos_at, t, s, inside, T, P: tl.constexpr):
    """Return the encodings (R, S, P) of the offsets of queries t (R,) and keys s (S,)."""
    offset = (T - 1 - t)[:, None] + s[None, :]
    at = offset[:, :, None] * P + tl.arange(0, P)[None, None, :]
    return tl.load(pos_at + at, inside[:, :, None], other=0.0).to(tl.float32)


@triton.jit
def _scores(q, k, p, pos_at, t, s, inside, T, P: tl.constexpr, PRECISION: tl.constexpr):
    """Return the scores (R, S) of queries q (R, D), p (R, P) at t and keys k (S, D) at s."""
    scores = product(q, tl.trans(k), PRECISION)
    if P > 0:
        scores += tl.sum(p[:, None, :] * _positions(pos_at, t, s, inside, T, P), 2)
    return scores


@triton.jit
def _hidden(mask_at, mask_t, mask_s, t, s, inside):
    """Return where (R, S) the mask says that queries t (R,) must not see keys s (S,)."""
    at = t[:, None] * mask_t + s[None, :] * mask_s
    return tl.load(mask_at + at, inside, other=0) != 0


@triton.jit(do_not_specialize=_VARYING)
def _weights_forward(
    q_at, q_h, q_n, q_t, k_at, k_h, k_n, k_s, p_at, p_h, p_n, p_t, pos_at, mask_at, mask_n, mask_t, mask_s,
    weights_at, first_at, N, T, S, L, D, masked_score,
    P: tl.constexpr, P_GIVEN: tl.constexpr, MASK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    h, n = row // N, row % N
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pos_at += h * L * P
    mask_at += n * mask_n
    weights_at += row * T * S
    first_at += n * T * S
    k_at += h * k_h + n * k_n
    q = _load_rows(q_at + h * q_h + n * q_n, q_t, t, T, D, WIDTH)
    p = q
    if P > 0:
        p = _load_rows(p_at + h * p_h + n * p_n, p_t, t, T, P_GIVEN, P).to(tl.float32)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, S, KEYS):
        s = start + tl.arange(0, KEYS)
        inside = (t < T)[:, None] & (s < S)[None, :]
        k = _load_rows(k_at, k_s, s, S, D, WIDTH)
        scores = _scores(q, k, p, pos_at, t, s, inside, T, P, PRECISION)
        if MASK:
            scores = tl.where(_hidden(mask_at, mask_t, mask_s, t, s, inside), masked_score, scores)
        scores = tl.where((s < S)[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp(top - new_top) + tl.sum(tl.exp(scores - new_top[:, None]), 1)
        top = new_top
    for start in range(0, S, KEYS):
        s = start + tl.arange(0, KEYS)
        inside = (t < T)[:, None] & (s < S)[None, :]
        k = _load_rows(k_at, k_s, s, S, D, WIDTH)
        scores = _scores(q, k, p, pos_at, t, s, inside, T, P, PRECISION)
        if MASK:
            scores = tl.where(_hidden(mask_at, mask_t, mask_s, t, s, inside), masked_score, scores)
        scores = tl.where((s < S)[None, :], scores, float("-inf"))
        weights = tl.exp(scores - top[:, None]) / total[:, None]
        weights = weights.to(weights_at.dtype.element_ty)
        at = t[:, None] * S + s[None, :]
        tl.store(weights_at + at, weights, inside)
        if h == 0:
            tl.store(first_at + at, weights, inside)


@triton.jit
def _grad_of_weights(grad_at, first_at, at, inside, h, FIRST: tl.constexpr):
    """Return the gradient (R, S) of the weights, to which that of the first head is added."""
    grad = tl.load(grad_at + at, inside, other=0.0).to(tl.float32)
    if FIRST:
        if h == 0:
            grad += tl.load(first_at + at, inside, other=0.0).to(tl.float32)
    return grad


@triton.jit(do_not_specialize=_VARYING)
def _scores_backward(
    q_at, q_h, q_n, q_t, k_at, k_h, k_n, k_s, p_at, p_h, p_n, p_t, pos_at, mask_at, mask_n, mask_t, mask_s,
    weights_at, grad_at, first_at, dscores_at, dq_at, dp_at, N, T, S, L, D, limit, penalty,
    P: tl.constexpr, P_GIVEN: tl.constexpr, MASK: tl.constexpr, FIRST: tl.constexpr, PENALTY: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    h, n, H = row // N, row % N, tl.num_programs(1) // N
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pos_at += h * L * P
    mask_at += n * mask_n
    weights_at += row * T * S
    grad_at += row * T * S
    dscores_at += row * T * S
    first_at += n * T * S
    k_at += h * k_h + n * k_n
    dot = tl.zeros((ROWS,), tl.float32)
    for start in range(0, S, KEYS):
        s = start + tl.arange(0, KEYS)
        inside = (t < T)[:, None] & (s < S)[None, :]
        at = t[:, None] * S + s[None, :]
        w = tl.load(weights_at + at, inside, other=0.0).to(tl.float32)
        dot += tl.sum(w * _grad_of_weights(grad_at, first_at, at, inside, h, FIRST), 1)
    q = _load_rows(q_at + h * q_h + n * q_n, q_t, t, T, D, WIDTH)
    p = q
    if P > 0:
        p = _load_rows(p_at + h * p_h + n * p_n, p_t, t, T, P_GIVEN, P).to(tl.float32)
    dq = tl.zeros((ROWS, WIDTH), tl.float32)
    if P > 0:
        dp = tl.zeros((ROWS, P), tl.float32)
    for start in range(0, S, KEYS):
        s = start + tl.arange(0, KEYS)
        inside = (t < T)[:, None] & (s < S)[None, :]
        at = t[:, None] * S + s[None, :]
        w = tl.load(weights_at + at, inside, other=0.0).to(tl.float32)
        g = w * (_grad_of_weights(grad_at, first_at, at, inside, h, FIRST) - dot[:, None])
        if MASK:
            g = tl.where(_hidden(mask_at, mask_t, mask_s, t, s, inside), 0.0, g)
        k = _load_rows(k_at, k_s, s, S, D, WIDTH)
        if PENALTY:
            scores = _scores(q, k, p, pos_at, t, s, inside, T, P, PRECISION)
            g += tl.where(inside & (scores > limit), penalty, 0.0)
            g -= tl.where(inside & (scores < -limit), penalty, 0.0)
        rounded = g.to(dscores_at.dtype.element_ty)
        tl.store(dscores_at + at, rounded, inside)
        dq += product(rounded, k, PRECISION)
        if P > 0:
            dp += tl.sum(g[:, :, None] * _positions(pos_at, t, s, inside, T, P), 1)
    rows = (t.to(tl.int64) * N + n) * H + h  # of (T, N, H), with the channels innermost
    d = tl.arange(0, WIDTH)[None, :]
    inside = (t < T)[:, None] & (d < D)
    tl.store(dq_at + rows[:, None] * D + d, dq.to(dq_at.dtype.element_ty), inside)
    if P > 0:
        d = tl.arange(0, P)[None, :]
        inside = (t < T)[:, None] & (d < P_GIVEN)
        tl.store(dp_at + rows[:, None] * P_GIVEN + d, dp.to(dp_at.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["N", "T", "S"])
def _keys_backward(
    q_at, q_h, q_n, q_t, dscores_at, dk_at, N, T, S, D,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    h, n, H = row // N, row % N, tl.num_programs(1) // N
    s = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    q_at += h * q_h + n * q_n
    dscores_at += row * T * S
    dk = tl.zeros((KEYS, WIDTH), tl.float32)
    for start in range(0, T, ROWS):
        t = start + tl.arange(0, ROWS)
        inside = (t < T)[:, None] & (s < S)[None, :]
        g = tl.load(dscores_at + t[:, None] * S + s[None, :], inside, other=0.0)
        dk += product(tl.trans(g), _load_rows(q_at, q_t, t, T, D, WIDTH), PRECISION)
    rows = (s.to(tl.int64) * N + n) * H + h
    d = tl.arange(0, WIDTH)[None, :]
    tl.store(dk_at + rows[:, None] * D + d, dk.to(dk_at.dtype.element_ty), (s < S)[:, None] & (d < D))


@triton.jit(do_not_specialize=["N", "T", "S", "L"])
def _positions_backward(
    p_at, p_h, p_n, p_t, dscores_at, sums_at, N, T, S, L, P,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, OFFSETS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum over the queries of a sequence that stand at an offset j = T - 1 - t + s to a key."""
    row = tl.program_id(1).to(tl.int64)
    h, n = row // N, row % N
    first = tl.program_id(0) * OFFSETS
    j = first + tl.arange(0, OFFSETS)
    p_at += h * p_h + n * p_n
    dscores_at += row * T * S
    sums = tl.zeros((OFFSETS, WIDTH), tl.float32)
    begin = tl.maximum(0, T - first - OFFSETS)  # other queries have no key at these offsets
    end = tl.minimum(T, T - 1 - first + S)
    for start in range(begin, end, ROWS):
        t = start + tl.arange(0, ROWS)
        s = j[None, :] - (T - 1) + t[:, None]
        inside = (t < T)[:, None] & (s >= 0) & (s < S)
        g = tl.load(dscores_at + t[:, None] * S + s, inside, other=0.0)
        sums += product(tl.trans(g), _load_rows(p_at, p_t, t, T, P, WIDTH), PRECISION)
    d = tl.arange(0, WIDTH)[None, :]
    tl.store(sums_at + (row * L + j)[:, None] * P + d, sums, (j < L)[:, None] & (d < P))


def fits(q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]) -> bool:
    """Return whether the kernels take these shapes and types, of the inputs of
    :func:`asr_core.ops.attention.attention_weights`.
    """
    if p is not None and not (p.dtype == pos.dtype == q.dtype and p.size(3) <= MAX_POSITION_WIDTH):
        return False
    return (
        q.dtype == k.dtype
        and q.size(3) <= 128
        and q.size(0) * q.size(1) <= 65535
        and q.size(2) * k.size(2) < 2**31
        and (mask is None or mask.dtype == torch.bool)
    )


def _arguments(
    q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor]
) -> Tuple[Any, ...]:
    """Return the addresses and strides with which the kernels of both directions begin."""
    q, k = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k))
    p = q if p is None else p if p.stride(3) == 1 else p.contiguous()
    if mask is None:
        seen, steps = q, [0, 0, 0]
    else:
        mask = mask[(None,) * (3 - mask.dim())]
        seen = mask.view(torch.uint8)
        steps = [0 if n == 1 else step for n, step in zip(mask.shape, mask.stride())]
    pos = F.pad(pos, (0, _power(pos.size(2)) - pos.size(2))).contiguous()
    return (q, *q.stride()[:3], k, *k.stride()[:3], p, *p.stride()[:3], pos, seen, *steps)


def _power(width: int) -> int:
    """Return the width of positional queries in a kernel, a power of 2 or 0."""
    return triton.next_power_of_2(width) if width > 0 else 0


def _sizes(q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor) -> Tuple[int, ...]:
    """Return H, N, T, S, L, D and P."""
    return (*q.shape[:3], k.size(2), pos.size(1), q.size(3), 0 if p is None else p.size(3))


def _keys(pos_width: int) -> int:
    """Return how many keys a program takes at a time, each with ``pos_width`` numbers per query."""
    return min(_KEYS, _KEYS * 4 // max(_power(pos_width), 4))


def weights_forward(
    q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, mask: Optional[Tensor], masked_score: float
) -> Tuple[Tensor, Tensor]:
    """Return the weights (H, N, T, S), and those of the first head again, (1, N, T, S).

    ``masked_score`` is the score of what the mask hides.
    """
    H, N, T, S, L, D, P = _sizes(q, k, p, pos)
    weights, first = q.new_empty(H, N, T, S), q.new_empty(1, N, T, S)
    _weights_forward[(triton.cdiv(T, _QUERIES), H * N)](
        *_arguments(q, k, p, pos, mask), weights, first, N, T, S, L, D, masked_score,
        P=_power(P), P_GIVEN=P, MASK=mask is not None, WIDTH=block_width(D), ROWS=_QUERIES,
        KEYS=_keys(P), PRECISION=precision(), num_warps=_WARPS,
    )  # fmt: skip
    return weights, first


def weights_backward(
    q: Tensor,
    k: Tensor,
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
    weights: Tensor,
    grad: Tensor,
    grad_first: Optional[Tensor],
    limit: float,
    penalty: float,
) -> Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor]]:
    """Return the gradients of q, k, p and pos.

    Args:
      q, k, p, pos, mask: as in the forward pass.
      weights: (H, N, T, S), its result.
      grad: (H, N, T, S), their gradient.
      grad_first: (1, N, T, S), a further one of the first head's; or None.
      limit, penalty: see :func:`asr_core.ops.attention.attention_weights`.
    """
    H, N, T, S, L, D, P = _sizes(q, k, p, pos)
    arguments = _arguments(q, k, p, pos, mask)
    dscores = torch.empty_like(weights)
    # laid out as the projections' output is, of which they are parts
    dq, dk = q.new_empty(T, N, H, D), q.new_empty(S, N, H, D)
    dp = q.new_empty(T, N, H, P) if P > 0 else dq
    grad = grad.contiguous()
    first = grad if grad_first is None else grad_first.contiguous()
    blocks = dict(WIDTH=block_width(D), PRECISION=precision())
    _scores_backward[(triton.cdiv(T, _QUERIES), H * N)](
        *arguments, weights, grad, first, dscores, dq, dp, N, T, S, L, D, limit, penalty,
        P=_power(P), P_GIVEN=P, MASK=mask is not None, ROWS=_QUERIES, KEYS=_keys(P),
        FIRST=grad_first is not None, PENALTY=penalty > 0.0, num_warps=_WARPS, **blocks,
    )  # fmt: skip
    _keys_backward[(triton.cdiv(S, _KEYS), H * N)](
        *arguments[:4], dscores, dk, N, T, S, D, ROWS=_SUMMED, KEYS=_KEYS, **blocks
    )
    dq, dk = dq.permute(2, 1, 0, 3), dk.permute(2, 1, 0, 3)
    if P == 0:
        return dq, dk, None, None
    sums = q.new_empty((H, N, L, P), dtype=torch.float32)
    _positions_backward[(triton.cdiv(L, _KEYS), H * N)](
        *arguments[8:12], dscores, sums, N, T, S, L, P,
        WIDTH=block_width(P), ROWS=_SUMMED, OFFSETS=_KEYS, PRECISION=precision(),
    )  # fmt: skip
    return dq, dk, dp.permute(2, 1, 0, 3), sums.sum(dim=1).to(pos.dtype)

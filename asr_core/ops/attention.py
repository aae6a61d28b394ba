"""Attention weights with relative positions, and the softmax that keeps only its output."""

from typing import Any, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.attention_on_cpu import softmax_backward_on_cpu, softmax_on_cpu
from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_exported, is_traced, operator

gpu_kernels = gpu.deferred("attention")

MASKED_SCORE = -1000.0  # finite, so that a row without any visible key stays finite


def relative_shift(scores: Tensor, num_keys: int) -> Tensor:
    """View position scores by offset, (H, N, T, L), as scores by key, (H, N, T, num_keys).

    Entry (t, s) of the result is entry (t, T - 1 - t + s) of ``scores``, with ``L = T - 1 +
    num_keys``. The input's last two axes must be contiguous.
    """
    num_heads, batch_size, num_queries, num_offsets = scores.shape
    traced = torch.jit.is_tracing()
    if not torch.jit.is_scripting():
        traced = traced or is_exported()
    if traced:
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
    """Return the weights (H, N, T, S) of :func:`attention_weights` by plain operations (for
    scripting and tracing).
    """
    scores = torch.matmul(q, k.transpose(2, 3))
    if p is not None:
        scores = scores + relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
    if mask is not None:
        scores = scores.masked_fill(mask, -1000.0)  # MASKED_SCORE, but scripts see no globals
    return scores.softmax(dim=-1)


Inputs = Tuple[Tensor, Tensor, Optional[Tensor], Tensor, Optional[Tensor]]  # q, k, p, pos, mask
Gradients = Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor]]  # of q, k, p, pos


def _by_gpu_kernels(inputs: Inputs) -> bool:
    """Return whether the kernels for GPUs take these inputs."""
    return gpu.usable(*inputs[:4]) and bool(gpu_kernels.fits(*inputs))


def _as_needed(inputs: Inputs) -> Inputs:
    """Return the inputs with q, k and p contiguous, which all but the kernels for GPUs want."""
    if _by_gpu_kernels(inputs):
        return inputs
    q, k, p, pos, mask = inputs
    return q.contiguous(), k.contiguous(), None if p is None else p.contiguous(), pos, mask


def _forward(inputs: Inputs) -> Tuple[Tensor, Tensor]:
    """Return the weights (H, N, T, S) and those of the first head again, (1, N, T, S)."""
    if _by_gpu_kernels(inputs):
        return gpu_kernels.weights_forward(*inputs, MASKED_SCORE)
    q, k, p, pos, mask = inputs
    if usable(q, k, p, pos):
        weights = softmax_on_cpu(torch.matmul(q, k.transpose(2, 3)), p, pos, mask)
    else:
        scores = _scores(q, k, p, pos)
        if mask is not None:
            scores.masked_fill_(mask, MASKED_SCORE)
        weights = scores.softmax(dim=-1, dtype=torch.float32 if scores.dtype == torch.float16 else None)
        weights = weights.to(scores.dtype)
    return weights, weights[:1].clone()


def _scores(q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor) -> Tensor:
    """Return the scores (H, N, T, S)."""
    scores = torch.matmul(q, k.transpose(2, 3))
    if p is not None:
        scores += relative_shift(torch.matmul(p, pos.unsqueeze(1).transpose(2, 3)), k.size(2))
    return scores


def _backward(
    inputs: Inputs,
    weights: Tensor,
    grad: Tensor,
    grad_first: Optional[Tensor],
    limit: float,
    penalty: float,
) -> Gradients:
    """Return the gradients of q, k, p and pos from those of the results of :func:`_forward`."""
    q, k, p, pos, mask = inputs
    if _by_gpu_kernels(inputs):
        return gpu_kernels.weights_backward(*inputs, weights, grad, grad_first, limit, penalty)
    if penalty == 0.0 and usable(weights, grad, grad_first):
        g, dp, dpos = softmax_backward_on_cpu(weights, grad, grad_first, p, pos, mask)
    else:
        g = _softmax_backward(weights, grad, grad_first, mask)
        if penalty > 0.0:  # in few batches: the scores are computed anew rather than kept
            scores = _scores(q, k, p, pos)
            g.add_((scores > limit).to(torch.int8) - (scores < -limit).to(torch.int8), alpha=penalty)
        dp, dpos = _positions_backward(g, p, pos)
    return torch.matmul(g, k), torch.matmul(g.transpose(2, 3), q), dp, dpos


class _AttentionWeights(torch.autograd.Function):
    """Keeps its inputs and the weights (H, N, T, S), no scores.

    The first head's weights are a second output, with its own gradient.
    """

    @staticmethod
    def forward(
        ctx: Context,
        q: Tensor,
        k: Tensor,
        p: Optional[Tensor],
        pos: Tensor,
        mask: Optional[Tensor],
        limit: float,
        penalty: float,
    ) -> Tuple[Tensor, Tensor]:
        inputs = _as_needed((q, k, p, pos, mask))
        output = _forward(inputs)
        _keep(ctx, (*inputs, limit, penalty), output)
        return output

    @staticmethod
    def backward(
        ctx: Context, grad: Optional[Tensor], grad_first: Optional[Tensor]
    ) -> Tuple[Optional[Tensor], ...]:
        q, k, p, pos, mask, weights = ctx.saved_tensors
        if grad is None:
            if grad_first is None:
                return (None,) * 7
            grad = torch.zeros_like(weights)
        grads = _backward((q, k, p, pos, mask), weights, grad, grad_first, *ctx.penalty)
        return (*grads, None, None, None)


def _keep(ctx: Context, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[0])
    ctx.penalty = inputs[5:]
    ctx.set_materialize_grads(False)


def _gradient(
    ctx: Context, grad: Optional[Tensor], grad_first: Optional[Tensor]
) -> Tuple[Optional[Tensor], ...]:
    q, k, p, pos, mask, weights = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(weights)
    dq, dk, dp, dpos = _backward_operator(q, k, p, pos, mask, weights, grad, grad_first, *ctx.penalty)
    if p is None:
        return dq, dk, None, None, None, None, None
    return dq, dk, dp, dpos, None, None, None


def _empty_weights(
    q: Tensor,
    k: Tensor,
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float,
    penalty: float,
) -> Tuple[Tensor, Tensor]:
    heads, batch, queries, _ = q.shape
    return q.new_empty(heads, batch, queries, k.size(2)), q.new_empty(1, batch, queries, k.size(2))


@operator("attention_weights", _empty_weights, _gradient, _keep)
def _operator(
    q: Tensor,
    k: Tensor,
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float,
    penalty: float,
) -> Tuple[Tensor, Tensor]:
    return _forward(_as_needed((q, k, p, pos, mask)))


def _empty_gradients(
    q: Tensor, k: Tensor, p: Optional[Tensor], pos: Tensor, *_: object
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    dp, dpos = (q.new_empty(0), q.new_empty(0)) if p is None else (p, pos)
    return q.new_empty(q.shape), k.new_empty(k.shape), dp.new_empty(dp.shape), dpos.new_empty(dpos.shape)


@operator("attention_weights_backward", _empty_gradients)
def _backward_operator(
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
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = _as_needed((q, k, p, pos, mask))
    grads = _backward(inputs, weights, grad, grad_first, limit, penalty)
    # an operator returns tensors, of the layout that was promised
    dq, dk, dp, dpos = (q.new_empty(0) if g is None else g.contiguous() for g in grads)
    return dq, dk, dp, dpos


class _Decisions(NamedTuple):
    """What the operator of :func:`attention_weights_as_drawn` reads.

    Attributes:
      penalty: of large scores.
      use_positions: whether position scores are added.
      uniform: whether the first head's weights are made uniform over the keys that it sees.
    """

    penalty: float
    use_positions: bool
    uniform: bool

    @classmethod
    def read(cls, table: Tensor, row: int) -> "_Decisions":
        penalty, use_positions, uniform = table[row, :3].tolist()
        return cls(penalty, bool(use_positions), bool(uniform))


def _keep_as_drawn(ctx: Context, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    ctx.limit, table, ctx.row = inputs[5:]
    ctx.save_for_backward(*inputs[:5], output[0], table)
    ctx.set_materialize_grads(False)


def _gradient_as_drawn(
    ctx: Context, grad: Optional[Tensor], grad_first: Optional[Tensor]
) -> Tuple[Optional[Tensor], ...]:
    q, k, p, pos, mask, weights, table = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(weights)
    grads = _backward_as_drawn_operator(
        q, k, p, pos, mask, weights, grad, grad_first, ctx.limit, table, ctx.row
    )
    return (*grads, None, None, None, None)


def _empty_weights_as_drawn(
    q: Tensor, k: Tensor, p: Tensor, pos: Tensor, mask: Optional[Tensor], *_: object
) -> Tuple[Tensor, Tensor]:
    return _empty_weights(q, k, p, pos, mask, 0.0, 0.0)


@operator("attention_weights_as_drawn", _empty_weights_as_drawn, _gradient_as_drawn, _keep_as_drawn)
def _as_drawn_operator(
    q: Tensor,
    k: Tensor,
    p: Tensor,
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float,
    table: Tensor,
    row: int,
) -> Tuple[Tensor, Tensor]:
    drawn = _Decisions.read(table, row)
    weights, first = _forward(_as_needed((q, k, p if drawn.use_positions else None, pos, mask)))
    if drawn.uniform:
        seen = (first > 0.0).to(first.dtype)
        first = seen / seen.sum(dim=-1, keepdim=True)
    return weights, first


@operator("attention_weights_as_drawn_backward", _empty_gradients)
def _backward_as_drawn_operator(
    q: Tensor,
    k: Tensor,
    p: Tensor,
    pos: Tensor,
    mask: Optional[Tensor],
    weights: Tensor,
    grad: Tensor,
    grad_first: Optional[Tensor],
    limit: float,
    table: Tensor,
    row: int,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    drawn = _Decisions.read(table, row)
    inputs = _as_needed((q, k, p if drawn.use_positions else None, pos, mask))
    of_first = None if drawn.uniform else grad_first
    dq, dk, dp, dpos = _backward(inputs, weights, grad, of_first, limit, drawn.penalty)
    dp, dpos = (torch.zeros_like(x) if g is None else g for x, g in ((p, dp), (pos, dpos)))
    return dq.contiguous(), dk.contiguous(), dp.contiguous(), dpos.contiguous()


def attention_weights_as_drawn(
    q: Tensor,
    k: Tensor,
    p: Tensor,
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float,
    table: Tensor,
    row: int,
) -> Tuple[Tensor, Tensor]:
    """Do what :func:`attention_weights` does, with decisions that are read when it runs.

    Args:
      q, k, p, pos, mask, limit: its arguments.
      table: (R, 6) float64 on the CPU; a row begins with the penalty, whether positions are used,
        and whether the second result is uniform over the keys that the first head sees.
      row: the row.
    """
    return _as_drawn_operator(q, k, p, pos, mask, limit, table, row)


def _softmax_backward(
    weights: Tensor, grad: Tensor, grad_first: Optional[Tensor], mask: Optional[Tensor]
) -> Tensor:
    """Return the gradient of the scores (H, N, T, S), in float32 at least."""
    if grad_first is not None:
        grad = torch.cat([grad[:1] + grad_first, grad[1:]])
    half = weights.dtype in (torch.float16, torch.bfloat16)
    w, g = (weights.float(), grad.float()) if half else (weights, grad)
    g = torch.ops.aten._softmax_backward_data(g, w, -1, w.dtype)
    if mask is not None:
        g.masked_fill_(mask, 0.0)
    return g.to(weights.dtype)


def _positions_backward(
    g: Tensor, p: Optional[Tensor], pos: Tensor
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Return the gradients of p (H, N, T, P) and pos (H, L, P) from the scores' (H, N, T, S)."""
    if p is None:
        return None, None
    by_offset = g.new_zeros((*g.shape[:3], pos.shape[1]))
    relative_shift(by_offset, g.size(3)).copy_(g)
    dp = torch.matmul(by_offset, pos.unsqueeze(1))
    return dp, torch.matmul(by_offset.flatten(1, 2).transpose(1, 2), p.flatten(1, 2))


def attention_weights(
    q: Tensor,
    k: Tensor,
    p: Optional[Tensor],
    pos: Tensor,
    mask: Optional[Tensor],
    limit: float = 25.0,
    penalty: float = 0.0,
) -> Tuple[Tensor, Tensor]:
    """Return the softmax over keys of ``q . k + p . pos`` (Dai et al. 2019, "Transformer-XL",
    without its biases).

    Args:
      q: (H, N, T, D) queries.
      k: (H, N, S, D) keys, S >= T; the last query stands at the last key.
      p: (H, N, T, P) positional queries, or None to leave positions out.
      pos: (H, T - 1 + S, P) projected positional encoding, by offset.
      mask: boolean (N or 1, T or 1, S), True where a key must not be seen. None: all are seen.
      limit: scores whose magnitude exceeds it get a penalty: a softmax of scores that far apart has
        no gradient to learn from.
      penalty: size of the penalty's gradient; 0 for none.

    Returns:
      The weights (H, N, T, S), and those of the first head again, (1, N, T, S), for users of one
      head: their gradient then needs no zeros for the other heads.
    """
    if not is_traced():
        return _AttentionWeights.apply(q, k, p, pos, mask, limit, penalty)
    if is_exported():
        weights = attention_weights_plain(q, k, p, pos, mask)
        return weights, weights[:1]
    return _operator(q, k, p, pos, mask, limit, penalty)

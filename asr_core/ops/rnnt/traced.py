"""The RNN-T losses as operators, which compilers and exporters keep whole.

The arguments of an operator are tensors, numbers and names: that of the back end, and the fields of
a :class:`~asr_core.ops.rnnt.lattice.Lattice` one after the other. What the gradient needs is among
the results.
"""

from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.operators import operator
from asr_core.ops.rnnt.arguments import backend_for
from asr_core.ops.rnnt.functions import (
    Scales,
    SmoothedTensors,
    pruned_loss,
    smoothed_gradients,
    smoothed_loss,
    symbol_counts,
    usable_gradient,
)
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice


def _apart(tensors: Sequence[Tensor]) -> List[Tensor]:
    """Return dense tensors that share no memory, as results of operators must be."""
    seen, out = set(), []
    for x in tensors:
        x = x.contiguous()
        if x.untyped_storage().data_ptr() in seen and x.numel() > 0:
            x = x.clone()
        seen.add(x.untyped_storage().data_ptr())
        out.append(x)
    return out


def _exact(x: Tensor) -> torch.dtype:
    """Return the float type of losses."""
    return torch.promote_types(x.dtype, torch.float32)


# ---- the smoothed loss


def _smoothed_fake(
    lm: Tensor, am: Tensor, symbols: Tensor, boundary: Tensor, blank: int, rnnt_type: str, *_: Any
) -> List[Tensor]:
    num_batch, num_frames, num_columns = am.shape
    contexts = lm.shape[1]
    x_frames = num_frames + int(rnnt_type == "regular")
    cells = (num_batch, num_frames, contexts)
    shapes: List[Tuple[Any, ...]] = [
        (num_batch,), tuple(am.shape), tuple(lm.shape), (num_batch, contexts), (num_batch, contexts),
        (num_columns,), (num_batch, num_frames), (num_batch, x_frames, contexts - 1), cells, cells, cells,
    ]  # fmt: skip
    return [am.new_empty(shape) for shape in shapes]


def _present(tensors: SmoothedTensors, am: Tensor, lm: Tensor) -> List[Tensor]:
    """Return all tensors, those that the scales leave out as ones of the same shapes."""
    whole = tensors._replace(
        unigram=am.new_ones(am.shape[2]) if tensors.unigram is None else tensors.unigram,
        am_only=am.new_ones(am.shape[:2]) if tensors.am_only is None else tensors.am_only,
        dot=am.new_ones(*am.shape[:2], lm.shape[1]) if tensors.dot is None else tensors.dot,
    )
    return _apart([x for x in whole if x is not None])


def _smoothed_gradient_fake(
    grad: Tensor, tensors: List[Tensor], symbols: Tensor, boundary: Tensor, *_: Any
) -> List[Tensor]:
    return [torch.empty_like(tensors[2]), torch.empty_like(tensors[1])]


@operator("rnnt_smoothed_gradient", _smoothed_gradient_fake)
def _smoothed_gradient_operator(
    grad: Tensor, tensors: List[Tensor], symbols: Tensor, boundary: Tensor, blank: int, rnnt_type: str,
    delay_penalty: float, fast_emit: float, lm_scale: float, am_scale: float, backend: str,
) -> List[Tensor]:  # fmt: skip
    own, scales = SmoothedTensors._make(tensors), Scales(lm_scale, am_scale)
    if am_scale == 0.0:
        own = own._replace(unigram=None, am_only=None)
    if fast_emit == 0.0:
        own = own._replace(dot=None)
    lattice = Lattice(symbols, boundary, blank, rnnt_type, delay_penalty, fast_emit)
    module = backend_for(backend, own.am_probs)
    usable = usable_gradient(grad, own.loss)
    lm_grad, am_grad = smoothed_gradients(own, usable, lattice, scales, module, (True, True))
    assert lm_grad is not None and am_grad is not None
    return _apart([lm_grad, am_grad])


def _smoothed_keep(ctx: Context, inputs: Tuple[Any, ...], output: List[Tensor]) -> None:
    ctx.save_for_backward(*inputs[2:4], *output)
    ctx.rest = inputs[4:]


def _smoothed_backward(ctx: Context, grads: List[Tensor]) -> Tuple[Any, ...]:
    symbols, boundary, *tensors = ctx.saved_tensors
    lm_grad, am_grad = _smoothed_gradient_operator(grads[0], tensors, symbols, boundary, *ctx.rest)
    return (lm_grad, am_grad, *(None,) * (2 + len(ctx.rest)))


@operator("rnnt_smoothed", _smoothed_fake, _smoothed_backward, _smoothed_keep)
def _smoothed_operator(
    lm: Tensor, am: Tensor, symbols: Tensor, boundary: Tensor, blank: int, rnnt_type: str,
    delay_penalty: float, fast_emit: float, lm_scale: float, am_scale: float, backend: str,
) -> List[Tensor]:  # fmt: skip
    lattice = Lattice(symbols, boundary, blank, rnnt_type, delay_penalty, fast_emit)
    module = backend_for(backend, am)
    arguments = (lattice, Scales(lm_scale, am_scale), True, module)
    return _present(smoothed_loss(lm.contiguous(), am.contiguous(), *arguments), am, lm)


def smoothed(
    lm: Tensor, am: Tensor, lattice: Lattice, scales: Scales, backend: str
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the losses (B,) and the counts (B, S, T + 1 or T) and (B, S + 1, T) of
    :class:`asr_core.ops.rnnt.functions.Smoothed`.
    """
    results = _smoothed_operator(lm, am, *lattice, *scales, backend)
    named = SmoothedTensors._make(results)
    assert named.symbol is not None and named.blank is not None
    return named.loss, named.symbol.detach().transpose(1, 2), named.blank.detach().transpose(1, 2)


# ---- the pruned loss and, with windows of all contexts, the full one


def _pruned_fake(logits: Tensor, s_begin: Tensor, symbols: Tensor, *rest: Any) -> List[Tensor]:
    exact = _exact(logits)
    scored = backend_for(rest[-1], logits).score_dtype or exact
    cells = [logits.new_empty(logits.shape[:3], dtype=scored) for _ in range(3)]
    return [logits.new_empty(logits.shape[:1], dtype=exact), *cells]


def _pruned_gradient_fake(grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape)


@operator("rnnt_pruned_gradient", _pruned_gradient_fake)
def _pruned_gradient_operator(
    grad: Tensor, logits: Tensor, s_begin: Tensor, tensors: List[Tensor], symbols: Tensor,
    boundary: Tensor, blank: int, rnnt_type: str, delay_penalty: float, fast_emit: float, backend: str,
) -> Tensor:  # fmt: skip
    loss, norm, symbol, of_blank = tensors
    lattice = Lattice(symbols, boundary, blank, rnnt_type, delay_penalty, fast_emit)
    counts = Counts(symbol_counts(symbol, lattice), of_blank)
    module, scale = backend_for(backend, logits), usable_gradient(grad, loss)
    return module.pruned_gradient(logits.contiguous(), norm, counts, scale, Band(lattice, s_begin))


def _pruned_keep(ctx: Context, inputs: Tuple[Any, ...], output: List[Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.rest = inputs[4:]


def _pruned_backward(ctx: Context, grads: List[Tensor]) -> Tuple[Any, ...]:
    logits, s_begin, symbols, boundary, *tensors = ctx.saved_tensors
    arguments = (logits, s_begin, tensors, symbols, boundary, *ctx.rest)
    grad = _pruned_gradient_operator(grads[0], *arguments)
    return (grad, *(None,) * (3 + len(ctx.rest)))


@operator("rnnt_pruned", _pruned_fake, _pruned_backward, _pruned_keep)
def _pruned_operator(
    logits: Tensor, s_begin: Tensor, symbols: Tensor, boundary: Tensor, blank: int, rnnt_type: str,
    delay_penalty: float, fast_emit: float, backend: str,
) -> List[Tensor]:  # fmt: skip
    lattice = Lattice(symbols, boundary, blank, rnnt_type, delay_penalty, fast_emit)
    module = backend_for(backend, logits)
    loss, norm, symbol, of_blank = pruned_loss(logits.contiguous(), Band(lattice, s_begin), True, module)
    assert symbol is not None and of_blank is not None
    return _apart([loss, norm, symbol.to(norm.dtype), of_blank.to(norm.dtype)])


def pruned(logits: Tensor, s_begin: Tensor, lattice: Lattice, backend: str) -> Tensor:
    """Return the losses (B,) of :class:`asr_core.ops.rnnt.functions.Pruned`."""
    loss: Tensor = _pruned_operator(logits, s_begin, *lattice, backend)[0]
    return loss


# ---- windows


def _ranges_fake(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, *_: Any) -> Tensor:
    return boundary.new_empty(py_grad.shape[0], py_grad.shape[2])


@operator("rnnt_prune_ranges", _ranges_fake)
def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int, backend: str) -> Tensor:
    """Return the first contexts (B, T) of windows, see
    :class:`asr_core.ops.rnnt.backend.RnntBackend`.
    """
    return backend_for(backend, py_grad).prune_ranges(px_grad, py_grad, boundary, s_range)


def _sum_fake(grad: Tensor, ranges: Tensor, num_contexts: int, *_: Any) -> Tensor:
    return grad.new_empty(grad.shape[0], num_contexts, grad.shape[3])


@operator("rnnt_sum_contexts", _sum_fake)
def _sum_operator(grad: Tensor, ranges: Tensor, num_contexts: int, backend: str) -> Tensor:
    module = backend_for(backend, grad)
    total = module.sum_contexts(None, grad.contiguous(), ranges, num_contexts)[1]
    assert total is not None
    return total


def _gather_fake(lm: Tensor, ranges: Tensor, *_: Any) -> Tensor:
    return lm.new_empty(*ranges.shape, lm.shape[2])


def _gather_keep(ctx: Context, inputs: Tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.rest = (inputs[0].shape[1], inputs[2])


def _gather_backward(ctx: Context, grad: Tensor) -> Tuple[Any, ...]:
    return _sum_operator(grad, ctx.saved_tensors[0], *ctx.rest), None, None


@operator("rnnt_gather_contexts", _gather_fake, _gather_backward, _gather_keep)
def gather_contexts(lm: Tensor, ranges: Tensor, backend: str) -> Tensor:
    """Return the rows of ``lm`` (B, S + 1, C) at ``ranges`` (B, T, R): (B, T, R, C)."""
    return backend_for(backend, lm).gather_contexts(lm, ranges)

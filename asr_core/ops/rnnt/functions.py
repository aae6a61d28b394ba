"""The RNN-T losses as autograd functions with analytic gradients; a back end does the work.

The gradient of a lattice's loss with respect to the score of an arc is minus the probability that a
path takes this arc (its occupation count), so no operation of the recursion is recorded. An
utterance whose loss is not finite has gradient 0.
"""

from typing import ContextManager, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.context import Context
from asr_core.ops.rnnt.backend import Exponentials, Factors, RnntBackend
from asr_core.ops.rnnt.lattice import LARGEST_WEIGHT, Band, Counts, Lattice, fold_forced_blanks


def _times(scale: float, x: Tensor) -> Tensor:
    """Return ``scale * x``; 0 if the scale is 0, for any x."""
    return scale * x if scale != 0.0 else torch.zeros_like(x)


def usable_gradient(grad_loss: Tensor, loss: Tensor) -> Tensor:
    """Return the gradient (B,) of the losses (B,) that are finite, 0 for the others; NaN stays NaN,
    by which training leaves out a step.
    """
    return torch.where(torch.isfinite(loss), grad_loss, grad_loss * 0.0)


def full_precision(x: Tensor) -> ContextManager[None]:
    """Return a context without autocast, which would make the matrix products half precision."""
    return torch.autocast(x.device.type, enabled=False)


def symbol_counts(counts: Tensor, lattice: Lattice) -> Tensor:
    """Return the counts of the symbols (B, T, ...) as gradients use them: FastEmit raises those of
    symbols, not of blanks.
    """
    return counts * (1.0 + lattice.fast_emit) if lattice.fast_emit != 0.0 else counts


class Scales(NamedTuple):
    """Weights of the lm-only and am-only scores.

    The rest is the weight of their sum (Kuang et al. 2022, section 2.3).
    """

    lm: float
    am: float

    @property
    def both(self) -> float:
        """Weight of the log-probabilities under logits lm + am."""
        return 1.0 - self.lm - self.am


class SmoothedTensors(NamedTuple):
    """Tensors that the backward pass of :class:`Smoothed` needs.

    Attributes:
      loss: (B,).
      am_probs: (B, T, C), see :class:`Exponentials`.
      lm_probs: (B, S + 1, C), likewise, with their maxima and sums:
      lm_max: (B, S + 1).
      lm_sum: (B, S + 1).
      unigram: (C,), the mean distribution of the contexts; None without an am-only part.
      am_only: (B, T), normalisers of the am-only part; None without it.
      symbol: (B, T + 1 or T, S), counts of the symbols; this and the next two are None if no
        gradient was wanted.
      blank: (B, T, S + 1), counts of the blanks.
      weights: (B, T, S + 1), weights of the normalisers.
      dot: (B, T, S + 1), see :class:`Factors`; None without FastEmit.
    """

    loss: Tensor
    am_probs: Tensor
    lm_probs: Tensor
    lm_max: Tensor
    lm_sum: Tensor
    unigram: Optional[Tensor]
    am_only: Optional[Tensor]
    symbol: Optional[Tensor]
    blank: Optional[Tensor]
    weights: Optional[Tensor]
    dot: Optional[Tensor]


class Smoothed(torch.autograd.Function):
    """Loss of lattices whose logits are lm + am, interpolated with lm-only and am-only scores.

    With c + l + a = 1 the score of label v at (s, t) is c (am_t + lm_s - N) + l (lm_s - L) + a
    (am_t + log u - A): N, L and A make each of the three a log-distribution over v; u is the mean
    over the batch's contexts of softmax(lm). N comes from a matrix product of exponentials, so no
    array (B, T, S, C) is ever made.
    """

    @staticmethod
    def forward(
        ctx: Context,
        lm: Tensor,
        am: Tensor,
        lattice: Lattice,
        scales: Scales,
        want_grad: bool,
        backend: RnntBackend,
    ) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
        want_grad = want_grad or any(ctx.needs_input_grad)
        with full_precision(am):
            tensors = smoothed_loss(lm.contiguous(), am.contiguous(), lattice, scales, want_grad, backend)
        ctx.save_for_backward(*tensors)
        ctx.lattice, ctx.scales, ctx.backend = lattice, scales, backend
        if tensors.symbol is None or tensors.blank is None:
            return tensors.loss, None, None
        px_grad, py_grad = tensors.symbol.transpose(1, 2), tensors.blank.transpose(1, 2)
        ctx.mark_non_differentiable(px_grad, py_grad)
        return tensors.loss, px_grad, py_grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_loss: Tensor, *_: Tensor) -> Tuple[Optional[Tensor], ...]:
        tensors = SmoothedTensors._make(ctx.saved_tensors)
        with full_precision(grad_loss):
            grad = usable_gradient(grad_loss, tensors.loss)
            lm_grad, am_grad = smoothed_gradients(
                tensors, grad, ctx.lattice, ctx.scales, ctx.backend, ctx.needs_input_grad[:2]
            )
        return lm_grad, am_grad, None, None, None, None


def smoothed_loss(
    lm: Tensor, am: Tensor, lattice: Lattice, scales: Scales, want_grad: bool, backend: RnntBackend
) -> SmoothedTensors:
    """Compute the losses; lm (B, S + 1, C) and am (B, T, C) are contiguous."""
    tiny = torch.finfo(am.dtype).tiny
    am_rows, lm_rows = backend.exp_rows(am), backend.exp_rows(lm)
    lm_symbol = lm[:, :-1].gather(2, lattice.symbols.unsqueeze(2)).squeeze(2)  # (B, S)
    lm_blank = lm[:, :, lattice.blank]  # (B, S + 1)
    lm_norm = lm_rows.total.log() + lm_rows.largest  # (B, S + 1)
    context_symbol = _times(scales.lm, lm_symbol - lm_norm[:, :-1])
    context_blank = _times(scales.lm, lm_blank - lm_norm)
    frame, unigram, am_only = am_rows.largest, None, None
    if scales.am != 0.0:
        unigram = mean_distribution(lm_rows)  # (C,)
        am_only = torch.matmul(am_rows.probs, unigram) + tiny  # (B, T)
        frame = -scales.am * (am_only.log() + am_rows.largest)
        context_symbol = context_symbol + scales.am * unigram.log()[lattice.symbols]
        context_blank = context_blank + scales.am * unigram.log()[lattice.blank]
    dot = torch.bmm(am_rows.probs, lm_rows.probs.transpose(1, 2)).add_(tiny)  # (B, T, S + 1)
    factors = Factors(
        am=am,
        lm_symbol=lm_symbol,
        lm_blank=lm_blank,
        am_max=am_rows.largest,
        lm_max=lm_rows.largest,
        dot=dot,
        log_dot=dot.log(),
        context_symbol=context_symbol,
        context_blank=context_blank,
        frame=frame,
        scale=scales.both,
        am_scale=scales.am,
    )
    result = backend.simple_lattice(factors, lattice, want_grad)
    return SmoothedTensors(
        loss=result.loss.to(am.dtype),
        am_probs=am_rows.probs,
        lm_probs=lm_rows.probs,
        lm_max=lm_rows.largest,
        lm_sum=lm_rows.total,
        unigram=unigram,
        am_only=am_only,
        symbol=None if result.counts is None else result.counts.symbol,
        blank=None if result.counts is None else result.counts.blank,
        weights=result.weights,
        dot=dot if lattice.fast_emit != 0.0 else None,
    )


def smoothed_gradients(
    tensors: SmoothedTensors,
    grad: Tensor,
    lattice: Lattice,
    scales: Scales,
    backend: RnntBackend,
    needed: Sequence[bool],
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Return the gradients of lm (B, S + 1, C) and am (B, T, C), those that are ``needed``, from
    that of the losses (B,).
    """
    symbol, weights = tensors.symbol, tensors.weights
    assert symbol is not None and tensors.blank is not None and weights is not None  # a gradient was wanted
    num_frames = tensors.am_probs.shape[1]
    blank = fold_forced_blanks(Counts(symbol, tensors.blank), lattice)
    if tensors.dot is not None:
        more = torch.nn.functional.pad(symbol[:, :num_frames], (0, 1)) * (scales.both * lattice.fast_emit)
        weights = (weights + more / tensors.dot).clamp_(max=LARGEST_WEIGHT)
        symbol = symbol_counts(symbol, lattice)
    counts, weights = Counts(symbol, blank), weights * grad[:, None, None]
    frames = None  # (B, T), weight of each frame's am-only normaliser
    if tensors.am_only is not None and tensors.unigram is not None:
        visits = symbol.sum(2)[:, :num_frames] + blank.sum(2)
        frames = scales.am * grad[:, None] * visits / tensors.am_only
    am_grad = lm_grad = None
    if needed[1]:
        product = torch.bmm(weights, tensors.lm_probs)  # (B, T, C)
        if frames is not None and tensors.unigram is not None:
            product += frames.unsqueeze(2) * tensors.unigram
        scale = (scales.both + scales.am) * grad
        am_grad = backend.am_gradient(product, tensors.am_probs, counts, scale, lattice)
    if needed[0]:
        lm_grad = _lm_gradient(tensors, counts, weights, frames, grad, lattice, scales, backend)
    return lm_grad, am_grad


def _lm_gradient(
    tensors: SmoothedTensors,
    counts: Counts,
    weights: Tensor,
    frames: Optional[Tensor],
    grad: Tensor,
    lattice: Lattice,
    scales: Scales,
    backend: RnntBackend,
) -> Tensor:
    """Return the gradient of lm, (B, S + 1, C)."""
    lm_grad = torch.bmm(weights.transpose(1, 2), tensors.am_probs)  # (B, S + 1, C)
    num_x, num_y = (
        grad[:, None] * counts.symbol.sum(1),
        grad[:, None] * counts.blank.sum(1),
    )  # (B, S), (B, S + 1)
    num_all = num_y.clone()
    num_all[:, :-1] += num_x
    lm_grad += (scales.lm * num_all / tensors.lm_sum).unsqueeze(2)
    lm_grad *= tensors.lm_probs
    own = scales.both + scales.lm
    lm_grad[:, :-1].scatter_add_(2, lattice.symbols.unsqueeze(2), -own * num_x.unsqueeze(2))
    lm_grad[:, :, lattice.blank] -= own * num_y
    if frames is not None and tensors.unigram is not None:
        am_rows = tensors.am_probs.reshape(-1, tensors.am_probs.shape[2])  # (B T, C)
        of_unigram = torch.matmul(frames.reshape(-1), am_rows)  # (C,)
        labels = backend.sum_by_label(num_x, lattice.symbols, of_unigram.shape[0])
        labels[lattice.blank] += num_y.sum()
        lm_rows = Exponentials(tensors.lm_probs, tensors.lm_max, tensors.lm_sum)
        lm_grad += mean_distribution_gradient(of_unigram - scales.am * labels / tensors.unigram, lm_rows)
    return lm_grad


def mean_distribution(rows: Exponentials) -> Tensor:
    """Return the mean (C,) over all rows of their distributions.

    Rows that have none (their maximum is NaN) do not count.
    """
    num_rows = torch.isfinite(rows.largest).sum().clamp(min=1)
    probs = rows.probs.reshape(-1, rows.probs.shape[-1])
    mean = torch.matmul(rows.total.reshape(-1).reciprocal(), probs) / num_rows
    return mean + torch.finfo(probs.dtype).tiny


def mean_distribution_gradient(grad: Tensor, rows: Exponentials) -> Tensor:
    """Return the gradient of the rows' logits (B, S + 1, C) from that of :func:`mean_distribution`,
    grad (C,).
    """
    num_rows = torch.isfinite(rows.largest).sum().clamp(min=1)
    softmax = rows.probs / rows.total.unsqueeze(-1)
    return softmax * (grad - torch.matmul(softmax, grad).unsqueeze(-1)) / num_rows


class _PrunedTensors(NamedTuple):
    """Tensors that the backward pass of :class:`Pruned` needs.

    These are loss (B,), logits (B, T, R, C), norm (B, T, R) and the counts (B, T, R), if wanted.
    """

    loss: Tensor
    logits: Tensor
    s_begin: Tensor
    norm: Tensor
    symbol: Optional[Tensor]
    blank: Optional[Tensor]


class Pruned(torch.autograd.Function):
    """Loss of lattices of which each frame has only R contexts, from their logits (B, T, R, C)."""

    @staticmethod
    def forward(
        ctx: Context, logits: Tensor, s_begin: Tensor, lattice: Lattice, backend: RnntBackend
    ) -> Tensor:
        band, want_grad = Band(lattice, s_begin), ctx.needs_input_grad[0]
        loss, norm, symbol, blank = pruned_loss(logits, band, want_grad, backend)
        ctx.save_for_backward(*_PrunedTensors(loss, logits, s_begin, norm, symbol, blank))
        ctx.lattice, ctx.backend = lattice, backend
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_loss: Tensor) -> Tuple[Optional[Tensor], ...]:
        tensors = _PrunedTensors._make(ctx.saved_tensors)
        assert tensors.symbol is not None and tensors.blank is not None  # a gradient was wanted
        counts = Counts(symbol_counts(tensors.symbol, ctx.lattice), tensors.blank)
        grad = usable_gradient(grad_loss, tensors.loss)
        band = Band(ctx.lattice, tensors.s_begin)
        return ctx.backend.pruned_gradient(tensors.logits, tensors.norm, counts, grad, band), None, None, None


def pruned_loss(
    logits: Tensor, band: Band, want_grad: bool, backend: RnntBackend
) -> Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor]]:
    """Return the losses (B,), normalisers (B, T, R) and, if wanted, counts (B, T, R) of symbols and
    blanks.
    """
    scores = backend.pruned_scores(logits, band)
    result = backend.band_lattice(scores, band, want_grad)
    symbol, blank = result.counts or (None, None)
    return result.loss.to(torch.promote_types(logits.dtype, torch.float32)), scores.norm, symbol, blank


class Pruning(torch.autograd.Function):
    """am (B, T, C1) and lm (B, S + 1, C2) seen through the windows ``ranges`` (B, T, R)."""

    @staticmethod
    def forward(
        ctx: Context, am: Tensor, lm: Tensor, ranges: Tensor, backend: RnntBackend
    ) -> Tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ranges)
        ctx.num_contexts, ctx.backend = lm.shape[1], backend
        return am.unsqueeze(2).expand(-1, -1, ranges.shape[2], -1), backend.gather_contexts(lm, ranges)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Context, am_grad: Optional[Tensor], lm_grad: Optional[Tensor]
    ) -> Tuple[Optional[Tensor], ...]:
        (ranges,) = ctx.saved_tensors
        am_grad = am_grad if ctx.needs_input_grad[0] else None
        lm_grad = lm_grad if ctx.needs_input_grad[1] else None
        am_sum, lm_sum = ctx.backend.sum_contexts(am_grad, lm_grad, ranges, ctx.num_contexts)
        return am_sum, lm_sum, None, None

"""The RNN-T losses as autograd functions with analytic gradients; the work is done by one of the back-end modules.

The gradient of a lattice's loss with respect to the score of an arc is minus the probability that a path takes this arc
(its occupation count), so no operation of the recursion is recorded. An utterance whose loss is not finite has gradient 0.
"""

from types import ModuleType
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.rnnt.lattice import LARGEST_WEIGHT, Factors, Lattice, fold_forced_blanks


def _times(scale: float, x: Tensor) -> Tensor:
    """``scale * x``, and 0 for scale 0 whatever x is."""
    return scale * x if scale != 0.0 else torch.zeros_like(x)


def usable_gradient(grad_loss: Tensor, loss: Tensor) -> Tensor:
    """The gradient of the losses that are finite, 0 for the others."""
    return torch.where(torch.isfinite(loss), grad_loss, torch.zeros_like(grad_loss))


def full_precision(x: Tensor) -> Any:
    """Context without autocast, which would make the matrix products half precision."""
    return torch.autocast(x.device.type, enabled=False)


def symbol_counts(occ_x: Tensor, lattice: Lattice) -> Tensor:
    """The counts of the symbols as gradients use them: FastEmit (Yu et al. 2021) makes those of symbols, not of blanks, larger."""
    return occ_x * (1.0 + lattice.fast_emit) if lattice.fast_emit != 0.0 else occ_x


def exp_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exponentials of rows, scaled by their maxima.

    Returns:
      e^(x - max) (..., C), the maxima (...), and the sums of the exponentials (...). A row with NaN, +inf or nothing but -inf
      has exponentials 0, maximum NaN and sum 1.
    """
    largest = x.amax(dim=-1)
    probs = (x - largest.unsqueeze(-1)).exp_()
    total = probs.sum(dim=-1)
    good = torch.isfinite(total)
    if not good.all():
        bad = ~good
        probs.masked_fill_(bad.unsqueeze(-1), 0.0)
        largest, total = largest.masked_fill(bad, float("nan")), total.masked_fill(bad, 1.0)
    return probs, largest, total


class Smoothed(torch.autograd.Function):
    """Loss of lattices whose logits are lm + am, interpolated with lm-only and am-only scores.

    With c + l + a = 1 the score of label v at (s, t) is c (am_t + lm_s - N) + l (lm_s - L) + a (am_t + log u - A): N, L and A
    make each of the three a log-distribution over v; u is the mean over the batch's contexts of softmax(lm). N comes from a
    matrix product of exponentials, so no array of B x T x S x C elements is ever made.
    """

    @staticmethod
    def forward(
        ctx: Any,
        lm: Tensor,
        am: Tensor,
        lattice: Lattice,
        lm_scale: float,
        am_scale: float,
        want_grad: bool,
        backend: ModuleType,
    ) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
        with full_precision(am):
            return Smoothed._forward(
                ctx, lm.contiguous(), am.contiguous(), lattice, lm_scale, am_scale, want_grad, backend
            )

    @staticmethod
    def _forward(
        ctx: Any,
        lm: Tensor,
        am: Tensor,
        lattice: Lattice,
        lm_scale: float,
        am_scale: float,
        want_grad: bool,
        backend: ModuleType,
    ) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
        scale = 1.0 - lm_scale - am_scale
        am_probs, am_max, _ = exp_rows(am)
        lm_probs, lm_max, lm_sum = exp_rows(lm)
        lm_symbol, lm_blank = (
            lm[:, :-1].gather(2, lattice.symbols.unsqueeze(2)).squeeze(2),
            lm[:, :, lattice.blank],
        )
        lm_norm = lm_sum.log() + lm_max
        context_symbol, context_blank = (
            _times(lm_scale, lm_symbol - lm_norm[:, :-1]),
            _times(lm_scale, lm_blank - lm_norm),
        )
        frame, unigram, am_only = am_max, None, None
        if am_scale != 0.0:
            unigram = mean_distribution(lm_probs, lm_max, lm_sum)
            am_only = torch.matmul(am_probs, unigram) + torch.finfo(am.dtype).tiny
            frame = -am_scale * (am_only.log() + am_max)
            context_symbol = context_symbol + am_scale * unigram.log()[lattice.symbols]
            context_blank = context_blank + am_scale * unigram.log()[lattice.blank]
        dot = torch.bmm(am_probs, lm_probs.transpose(1, 2)).add_(torch.finfo(am.dtype).tiny)
        contexts = (context_symbol, context_blank)
        factors = Factors(
            am,
            lm_symbol,
            lm_blank,
            am_max,
            lm_max,
            dot,
            dot.log(),
            *contexts,
            frame,
            scale=scale,
            am_scale=am_scale,
        )
        total, occ_x, occ_y, weights = backend.simple_lattice(
            factors, lattice, want_grad or any(ctx.needs_input_grad)
        )
        loss = total.to(am.dtype)
        sums = dot if lattice.fast_emit != 0.0 else None
        ctx.save_for_backward(
            loss, am_probs, lm_probs, lm_max, lm_sum, unigram, am_only, occ_x, occ_y, weights, sums
        )
        ctx.lattice, ctx.scales, ctx.backend = lattice, (scale, lm_scale, am_scale), backend
        if occ_x is None:
            return loss, None, None
        px_grad, py_grad = occ_x.transpose(1, 2), occ_y.transpose(1, 2)
        ctx.mark_non_differentiable(px_grad, py_grad)
        return loss, px_grad, py_grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Optional[Tensor], ...]:
        with full_precision(grad_loss):
            return (*Smoothed._backward(ctx, grad_loss), None, None, None, None, None)

    @staticmethod
    def _backward(ctx: Any, grad_loss: Tensor) -> tuple[Optional[Tensor], Optional[Tensor]]:
        loss, am_probs, lm_probs, lm_max, lm_sum, unigram, am_only, occ_x, occ_y, weights, dot = (
            ctx.saved_tensors
        )
        scale, lm_scale, am_scale = ctx.scales
        lattice, grad = ctx.lattice, usable_gradient(grad_loss, loss)
        occ_y = fold_forced_blanks(occ_x, occ_y, lattice)
        if dot is not None:
            more = torch.nn.functional.pad(occ_x[:, : am_probs.shape[1]], (0, 1)) * (
                scale * lattice.fast_emit
            )
            weights = (weights + more / dot).clamp_(max=LARGEST_WEIGHT)
            occ_x = symbol_counts(occ_x, lattice)
        weights = weights * grad[:, None, None]
        frames = None  # weight of each frame's am-only normaliser
        if am_scale != 0.0:
            frames = (
                am_scale * grad[:, None] * (occ_x.sum(2)[:, : am_probs.shape[1]] + occ_y.sum(2)) / am_only
            )

        am_grad = lm_grad = None
        if ctx.needs_input_grad[1]:
            product = torch.bmm(weights, lm_probs)
            if frames is not None:
                product += frames.unsqueeze(2) * unigram
            am_grad = ctx.backend.am_gradient(
                product, am_probs, occ_x, occ_y, (scale + am_scale) * grad, lattice
            )
        if ctx.needs_input_grad[0]:
            lm_grad = torch.bmm(weights.transpose(1, 2), am_probs)
            num_x, num_y = grad[:, None] * occ_x.sum(1), grad[:, None] * occ_y.sum(1)
            num_all = num_y.clone()
            num_all[:, :-1] += num_x
            lm_grad += (lm_scale * num_all / lm_sum).unsqueeze(2)
            lm_grad *= lm_probs
            lm_grad[:, :-1].scatter_add_(
                2, lattice.symbols.unsqueeze(2), -(scale + lm_scale) * num_x.unsqueeze(2)
            )
            lm_grad[:, :, lattice.blank] -= (scale + lm_scale) * num_y
            if frames is not None:
                of_unigram = torch.matmul(frames.reshape(-1), am_probs.reshape(-1, am_probs.shape[2]))
                labels = torch.zeros_like(of_unigram).index_add_(
                    0, lattice.symbols.reshape(-1), num_x.reshape(-1)
                )
                labels[lattice.blank] += num_y.sum()
                lm_grad += mean_distribution_gradient(
                    of_unigram - am_scale * labels / unigram, lm_probs, lm_max, lm_sum
                )
        return lm_grad, am_grad


def mean_distribution(probs: Tensor, largest: Tensor, total: Tensor) -> Tensor:
    """Mean (C,) over all rows of the distributions ``probs / total``; rows that are none (their maximum is NaN) do not count."""
    num_rows = torch.isfinite(largest).sum().clamp(min=1)
    rows = probs.reshape(-1, probs.shape[-1])
    return torch.matmul(total.reshape(-1).reciprocal(), rows) / num_rows + torch.finfo(probs.dtype).tiny


def mean_distribution_gradient(grad: Tensor, probs: Tensor, largest: Tensor, total: Tensor) -> Tensor:
    """Backward of :func:`mean_distribution`: the gradient with respect to the logits of the rows."""
    num_rows = torch.isfinite(largest).sum().clamp(min=1)
    softmax = probs / total.unsqueeze(-1)
    return softmax * (grad - torch.matmul(softmax, grad).unsqueeze(-1)) / num_rows


class Pruned(torch.autograd.Function):
    """Loss of lattices of which each frame has only ``s_range`` contexts, from their logits (B, T, s_range, C)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, s_begin: Tensor, lattice: Lattice, backend: ModuleType) -> Tensor:
        px, py, norm = backend.pruned_scores(logits, s_begin, lattice)
        total, occ_x, occ_y = backend.band_lattice(px, py, s_begin, lattice, ctx.needs_input_grad[0])
        loss = total.to(logits.dtype)
        ctx.save_for_backward(loss, logits, s_begin, norm, occ_x, occ_y)
        ctx.lattice, ctx.backend = lattice, backend
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Optional[Tensor], ...]:
        loss, logits, s_begin, norm, occ_x, occ_y = ctx.saved_tensors
        grad, occ_x = usable_gradient(grad_loss, loss), symbol_counts(occ_x, ctx.lattice)
        return (
            ctx.backend.pruned_gradient(logits, norm, occ_x, occ_y, s_begin, grad, ctx.lattice),
            None,
            None,
            None,
        )


class Pruning(torch.autograd.Function):
    """am (B, T, C1) and lm (B, S + 1, C2) seen through the windows ``ranges`` (B, T, s_range)."""

    @staticmethod
    def forward(
        ctx: Any, am: Tensor, lm: Tensor, ranges: Tensor, backend: ModuleType
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ranges)
        ctx.num_contexts, ctx.backend = lm.shape[1], backend
        return am.unsqueeze(2).expand(-1, -1, ranges.shape[2], -1), backend.gather_contexts(lm, ranges)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, am_grad: Optional[Tensor], lm_grad: Optional[Tensor]
    ) -> tuple[Optional[Tensor], ...]:
        (ranges,) = ctx.saved_tensors
        am_grad = am_grad if ctx.needs_input_grad[0] else None
        lm_grad = lm_grad if ctx.needs_input_grad[1] else None
        return (*ctx.backend.sum_contexts(am_grad, lm_grad, ranges, ctx.num_contexts), None, None)

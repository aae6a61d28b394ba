"""The pruned RNN-T loss from the two projections that a joiner combines, without an array of all
logits.

The B T R cells (utterance, frame, context of the frame's window) are walked in blocks of whole
frames. The forward pass keeps three numbers of each cell; the backward pass computes a block's
logits once more. Nothing is asked of the device on the way.
"""

from typing import Iterator, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.context import Context
from asr_core.ops.rnnt.backend import BandScores, BlockKernels, RnntBackend
from asr_core.ops.rnnt.functions import full_precision, symbol_counts, usable_gradient
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice
from asr_core.ops.rnnt.projected import Output, Rows, row_gradient, row_scores, tanh_of_sum

# Numbers that a block's hidden vectors, their gradients and logits may hold: few enough for large
# parts of them to be still in a GPU's cache when the next operation reads them.
_BLOCK = 1 << 25


class _Tensors(NamedTuple):
    """Tensors that the backward pass of :class:`Windowed` needs.

    These are its arguments, loss (B,), norm (B, T, R) and the counts (B, T, R), if wanted.
    """

    loss: Tensor
    am: Tensor
    lm: Tensor
    weight: Tensor
    bias: Tensor
    ranges: Tensor
    norm: Tensor
    symbol: Optional[Tensor]
    blank: Optional[Tensor]


class _Joiner(NamedTuple):
    """What all blocks share.

    Attributes:
      am: (B, T, J1).
      lm: (B, S + 1, J1).
      matrix: (C, J2), of the type in which matrices are multiplied.
      offset: (C,), of the same type.
      ranges: (B, T, R).
      band: the lattices and windows.
      output: the way from projections to logits.
      backend: who works on them.
    """

    am: Tensor
    lm: Tensor
    matrix: Tensor
    offset: Tensor
    ranges: Tensor
    band: Band
    output: Output
    backend: RnntBackend

    def kernels(self) -> Optional[BlockKernels]:
        """Return kernels for blocks, if the back end has them and they do for this joiner."""
        return None if self.output.factorised else self.backend.blocks

    def blocks(self) -> Iterator[Tuple[int, int]]:
        """Walk the cells; return the numbers of a block's first cell and behind its last one."""
        cell = self.matrix.shape[0] + 2 * self.matrix.shape[1] + 2 * self.am.shape[2]  # numbers of one
        s_range, num_cells = self.ranges.shape[2], self.ranges.numel()
        step = max(1, (self.output.block_cells or _BLOCK // cell) // s_range) * s_range
        return ((first, min(first + step, num_cells)) for first in range(0, num_cells, step))

    def contexts(self, first: int, end: int) -> Tensor:
        """Return the places (M,) of the contexts of cells among all B (S + 1)."""
        utterances = torch.arange(self.lm.shape[0], device=self.lm.device)[:, None, None]
        return (self.ranges + utterances * self.lm.shape[1]).view(-1)[first:end]

    def hidden(self, first: int, end: int) -> Tuple[Tensor, Optional[Tuple[Tensor, Tensor]]]:
        """Return the hidden vectors (M, J2) of cells and, unless kernels know their gradient, the
        rows of am (M, J1) and lm (M, J1) that they are made of.
        """
        kernels = self.backend.blocks
        if kernels is not None and self.output.combine is tanh_of_sum:
            return kernels.tanh_rows(self.am, self.lm, self.ranges, first, end, self.matrix.dtype), None
        cells = torch.arange(first, end, device=self.am.device)
        frames = cells.div(self.ranges.shape[2], rounding_mode="floor")
        am, lm = self.am.flatten(0, 1)[frames], self.lm.flatten(0, 1)[self.contexts(first, end)]
        with torch.enable_grad():
            am, lm = am.detach().requires_grad_(), lm.detach().requires_grad_()
            return self.output.combine(am, lm).to(self.matrix.dtype), (am, lm)

    def rows(self, hidden: Tensor, first: int, end: int) -> Rows:
        """Return the logits (M, C) of cells in float32 or better, and what belongs to them."""
        labels = F.pad(self.band.lattice.symbols, (0, 1), value=self.band.lattice.blank).view(-1)
        logits = torch.addmm(self.offset, hidden, self.matrix.t())
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        own = labels[self.contexts(first, end)]
        return Rows(logits, own, self.band.lattice.blank, self.output.factorised)

    def scores(self, to: BandScores) -> None:
        """Compute the scores (B, T, R) of all cells."""
        kernels = self.kernels()
        for first, end in self.blocks():
            hidden = self.hidden(first, end)[0].detach()
            if kernels is not None:
                kernels.scores(torch.addmm(self.offset, hidden, self.matrix.t()), self.band, first, to)
                continue
            for whole, part in zip(to, row_scores(self.rows(hidden, first, end), self.backend)):
                whole.view(-1)[first:end] = part

    def logits_gradient(
        self, hidden: Tensor, first: int, end: int, norm: Tensor, counts: Counts, scale: Tensor
    ) -> Tensor:
        """Return the gradient (M, C) of the logits of cells, from the normalisers and counts (B, T,
        R) of all and the weights (B,) of the losses.
        """
        kernels = self.kernels()
        if kernels is not None:
            logits = torch.addmm(self.offset, hidden, self.matrix.t())
            kernels.gradient(logits, self.band, first, norm, counts, scale)
            return logits
        own = Counts._make((scale[:, None, None] * count).view(-1)[first:end] for count in counts)
        rows = self.rows(hidden, first, end)
        return row_gradient(rows, norm.view(-1)[first:end], own, self.backend).to(hidden.dtype)


class Windowed(torch.autograd.Function):
    """Losses (B,) of lattices with logits ``combine(am[b, t], lm[b, s]) weight^T + bias`` in the
    windows ``ranges`` (B, T, R); am (B, T, J1), lm (B, S + 1, J1).

    Matrices are multiplied in ``dtype``.
    """

    @staticmethod
    def forward(
        ctx: Context,
        am: Tensor,
        lm: Tensor,
        weight: Tensor,
        bias: Tensor,
        ranges: Tensor,
        lattice: Lattice,
        output: Output,
        dtype: torch.dtype,
        backend: RnntBackend,
    ) -> Tensor:
        exact = torch.promote_types(dtype, torch.float32)
        with full_precision(am):
            band = Band(lattice, ranges[:, :, 0].contiguous())
            joiner = _Joiner(am, lm, weight.to(dtype), bias.to(dtype), ranges, band, output, backend)
            scored = backend.score_dtype or exact
            scores = BandScores._make(am.new_empty(3, *ranges.shape, dtype=scored).unbind(0))
            joiner.scores(scores)
            result = backend.band_lattice(scores, band, any(ctx.needs_input_grad))
            loss = result.loss.to(exact)
            symbol, blank = (count.to(scored) for count in result.counts) if result.counts else (None, None)
        ctx.save_for_backward(*_Tensors(loss, am, lm, weight, bias, ranges, scores.norm, symbol, blank))
        ctx.band, ctx.output, ctx.dtype, ctx.backend = band, output, dtype, backend
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_loss: Tensor) -> Tuple[Optional[Tensor], ...]:
        tensors = _Tensors._make(ctx.saved_tensors)
        with full_precision(tensors.am):
            matrix, offset = tensors.weight.to(ctx.dtype), tensors.bias.to(ctx.dtype)
            joiner = _Joiner(
                tensors.am, tensors.lm, matrix, offset, tensors.ranges, ctx.band, ctx.output, ctx.backend
            )
            grads = _gradients(joiner, tensors, grad_loss)
        own = (tensors.am, tensors.lm, tensors.weight, tensors.bias)
        return (*(grad.to(x.dtype) for grad, x in zip(grads, own)), None, None, None, None, None)


def _gradients(joiner: _Joiner, tensors: _Tensors, grad_loss: Tensor) -> Tuple[Tensor, ...]:
    """Return the gradients of am, lm, weight and bias from that of the losses (B,)."""
    assert tensors.symbol is not None and tensors.blank is not None  # a gradient was wanted
    am, lm, ranges, backend = joiner.am, joiner.lm, joiner.ranges, joiner.backend
    exact, s_range = torch.promote_types(joiner.matrix.dtype, torch.float32), ranges.shape[2]
    am_grad, lm_grad = torch.empty_like(am), torch.zeros_like(lm, dtype=exact)
    weight_grad = torch.zeros_like(joiner.matrix, dtype=exact)
    bias_grad = torch.zeros_like(joiner.offset, dtype=exact)
    scale = usable_gradient(grad_loss, tensors.loss).to(tensors.norm.dtype)
    counts = Counts(symbol_counts(tensors.symbol, joiner.band.lattice), tensors.blank)
    for first, end in joiner.blocks():
        hidden, leaves = joiner.hidden(first, end)
        h = hidden.detach()
        grad = joiner.logits_gradient(h, first, end, tensors.norm, counts, scale)
        _add_product(weight_grad, grad.t(), h)
        bias_grad += grad.sum(dim=0, dtype=exact)
        lm_part = torch.mm(grad, joiner.matrix)
        if leaves is not None:
            am_part, lm_part = torch.autograd.grad(hidden, leaves, lm_part)
            per_frame = am_part.view(-1, s_range, am.shape[2]).sum(1)
            am_grad.view(-1, am.shape[2])[first // s_range : end // s_range] = per_frame
        elif backend.blocks is not None:
            backend.blocks.tanh_gradient(h, lm_part, first, s_range, am_grad)
        backend.add_contexts(lm_part, ranges, first, lm_grad)
    return am_grad, lm_grad, weight_grad, bias_grad


def _add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the product of two matrices to a third one, which may be more precise."""
    if to.dtype == a.dtype:
        to.addmm_(a, b)
    else:
        to += torch.mm(a, b)

"""The full RNN-T loss from the two projections that a joiner combines, without an array of all
logits.

The cells (utterance, frame, context) inside the lattices are walked in blocks. The forward pass
keeps three numbers of each cell: log p(symbol), log p(blank) and the normaliser. The backward pass
computes the logits of a block again, and only of cells that paths visit; with counts c_x and c_y of
a cell's symbol v and blank, the gradient with respect to its logits z is ::

    softmax(z) (c_x + c_y) - c_x [v] - c_y [blank]

and of a factorised blank (Variani et al. 2020, "Hybrid autoregressive transducer") ::

    blank: sigmoid(z_blank) (c_x + c_y) - c_y;  others: softmax of the others (z) c_x - c_x [v]
"""

from typing import Callable, Iterator, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.context import Context
from asr_core.ops.rnnt.backend import BandScores, RnntBackend
from asr_core.ops.rnnt.functions import full_precision, symbol_counts, usable_gradient
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice

# Numbers that a block's hidden vectors and logits may hold: 16 MB on the CPU, whose caches they
# should fit; elsewhere 256 MB, enough to keep a GPU busy.
_CPU_BLOCK, _OTHER_BLOCK = 1 << 22, 1 << 26


def tanh_of_sum(am: Tensor, lm: Tensor) -> Tensor:
    """Return ``tanh(am + lm)`` (M, J), the usual joiner before its output layer."""
    return torch.tanh(am + lm)


class Output(NamedTuple):
    """The way from a joiner's projections to its logits.

    Attributes:
      combine: (M, J1), (M, J1) -> (M, J2), row by row.
      factorised: whether the blank has its own probability, sigmoid(its logit), in addition to a
        softmax over the others.
      block_cells: cells per block; None chooses.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    factorised: bool
    block_cells: Optional[int]


class _Cells(NamedTuple):
    """A block of M cells: their utterances b (M,), frames t (M,) and contexts s (M,)."""

    b: Tensor
    t: Tensor
    s: Tensor


class Rows(NamedTuple):
    """The logits of a block of cells, and what belongs to them.

    Attributes:
      logits: (M, C); functions that take them may change them.
      labels: (M,), the symbol that follows each cell.
      blank: the blank.
      factorised: see :class:`Output`.
    """

    logits: Tensor
    labels: Tensor
    blank: int
    factorised: bool

    def without_blank(self) -> Tensor:
        """Leave the blank out of the logits if it is factorised.

        Return its logits (M,) as they were.
        """
        of_blank = self.logits[:, self.blank].clone()
        if self.factorised:
            self.logits[:, self.blank] = float("-inf")
        return of_blank

    def band(self) -> Band:
        """Return the cells as the frames of one lattice with a window of one context each."""
        num = self.labels.shape[0]
        boundary = self.labels.new_zeros(1, 4)
        boundary[:, 2:] = num
        lattice = Lattice(self.labels.unsqueeze(0), boundary, self.blank, "regular")
        return Band(lattice, torch.arange(num, device=self.labels.device).unsqueeze(0))


class _Tensors(NamedTuple):
    """Tensors that the backward pass of :class:`Projected` needs.

    These are its arguments, loss (B,), norm (B, T, S + 1) and the counts (B, T, S + 1), if wanted.
    """

    loss: Tensor
    am: Tensor
    lm: Tensor
    weight: Tensor
    bias: Tensor
    norm: Tensor
    symbol: Optional[Tensor]
    blank: Optional[Tensor]


class Projected(torch.autograd.Function):
    """Losses (B,) of lattices with logits ``combine(am[b, t], lm[b, s]) weight^T + bias``; am (B,
    T, J1), lm (B, S + 1, J1).
    """

    @staticmethod
    def forward(
        ctx: Context,
        am: Tensor,
        lm: Tensor,
        weight: Tensor,
        bias: Tensor,
        lattice: Lattice,
        output: Output,
        backend: RnntBackend,
    ) -> Tensor:
        with full_precision(am):
            shape = (am.shape[0], am.shape[1], lm.shape[1])
            dtype = backend.score_dtype or am.dtype
            scores = BandScores._make(am.new_zeros(3, *shape, dtype=dtype).unbind(0))  # (B, T, S + 1) each
            labels = F.pad(lattice.symbols, (0, 1), value=lattice.blank)
            for cells in _blocks(lattice.inside(shape[1], shape[2]), am, weight, output):
                b, t, s = cells
                logits = torch.addmm(bias, output.combine(am[b, t], lm[b, s]), weight.t())  # (M, C)
                block = row_scores(Rows(logits, labels[b, s], lattice.blank, output.factorised), backend)
                for whole, part in zip(scores, block):
                    whole[cells] = part
            band = Band(lattice, lattice.symbols.new_zeros(shape[:2]))
            result = backend.band_lattice(scores, band, any(ctx.needs_input_grad))
            loss = result.loss.to(am.dtype)
            symbol, blank = (count.to(dtype) for count in result.counts) if result.counts else (None, None)
            ctx.save_for_backward(*_Tensors(loss, am, lm, weight, bias, scores.norm, symbol, blank))
            ctx.lattice, ctx.output, ctx.backend = lattice, output, backend
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_loss: Tensor) -> Tuple[Optional[Tensor], ...]:
        tensors = _Tensors._make(ctx.saved_tensors)
        with full_precision(tensors.am):
            am_grad, lm_grad, weight_grad, bias_grad = _gradients(
                tensors, grad_loss, ctx.lattice, ctx.output, ctx.backend
            )
        return am_grad, lm_grad, weight_grad, bias_grad, None, None, None


def _gradients(
    tensors: _Tensors, grad_loss: Tensor, lattice: Lattice, output: Output, backend: RnntBackend
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of am (B, T, J1), lm (B, S + 1, J1), weight (C, J2) and bias (C,) from
    that of the losses (B,).
    """
    am, lm, weight, bias, norm = tensors.am, tensors.lm, tensors.weight, tensors.bias, tensors.norm
    assert tensors.symbol is not None and tensors.blank is not None  # a gradient was wanted
    am_grad, lm_grad = torch.zeros_like(am), torch.zeros_like(lm)
    weight_grad, bias_grad = torch.zeros_like(weight), torch.zeros_like(bias)
    am_rows, lm_rows = am_grad.view(-1, am.shape[2]), lm_grad.view(-1, lm.shape[2])
    scale = usable_gradient(grad_loss, tensors.loss).to(norm.dtype)
    # what all other cells could add is less than a rounding error of the sums
    visited = tensors.symbol + tensors.blank > 0.01 * torch.finfo(am.dtype).eps
    visited |= scale.isnan()[:, None, None]  # NaN reaches all gradients
    counts = Counts(symbol_counts(tensors.symbol, lattice), tensors.blank)
    labels = F.pad(lattice.symbols, (0, 1), value=lattice.blank)
    for cells in _blocks(visited, am, weight, output):
        b, t, s = cells
        with torch.enable_grad():
            am_cells, lm_cells = am[b, t].detach().requires_grad_(), lm[b, s].detach().requires_grad_()
            hidden = output.combine(am_cells, lm_cells)  # (M, J2)
        logits = torch.addmm(bias, hidden.detach(), weight.t())  # (M, C)
        own = Counts(scale[b] * counts.symbol[cells], scale[b] * counts.blank[cells])
        rows = Rows(logits, labels[b, s], lattice.blank, output.factorised)
        grad = row_gradient(rows, norm[cells], own, backend)
        weight_grad.addmm_(grad.t(), hidden.detach())
        bias_grad.add_(grad.sum(dim=0))
        am_part, lm_part = torch.autograd.grad(hidden, (am_cells, lm_cells), grad @ weight)
        am_rows.index_add_(0, b * am.shape[1] + t, am_part)
        lm_rows.index_add_(0, b * lm.shape[1] + s, lm_part)
    return am_grad, lm_grad, weight_grad, bias_grad


def _blocks(cells: Tensor, am: Tensor, weight: Tensor, output: Output) -> Iterator[_Cells]:
    """Walk the cells (B, T, S + 1) that are True, a block at a time."""
    most = _CPU_BLOCK if am.device.type == "cpu" else _OTHER_BLOCK
    size = output.block_cells or max(64, most // (weight.shape[0] + 2 * weight.shape[1] + 2 * am.shape[2]))
    return (_Cells._make(block.unbind(1)) for block in cells.nonzero().split(size))


def row_scores(rows: Rows, backend: RnntBackend) -> BandScores:
    """Return log p(label), log p(blank) and the normaliser (of all or, factorised, of all but the
    blank), (M,) each.
    """
    of_blank = rows.without_blank()
    px, py, norm = (x.view(-1) for x in backend.pruned_scores(rows.logits[None, :, None], rows.band()))
    if rows.factorised:
        px, py = px + F.logsigmoid(-of_blank), F.logsigmoid(of_blank).to(py.dtype)
    return BandScores(px, py, norm)


def row_gradient(rows: Rows, norm: Tensor, counts: Counts, backend: RnntBackend) -> Tensor:
    """Return the gradient of the logits (M, C), given their normalisers (M,) and counts (M,)."""
    of_blank = rows.without_blank()
    shared = Counts(counts.symbol, torch.zeros_like(counts.blank)) if rows.factorised else counts
    shaped = Counts._make(count[None, :, None].contiguous() for count in shared)  # (1, M, 1)
    grad = backend.pruned_gradient(
        rows.logits[None, :, None],
        norm[None, :, None].contiguous(),
        shaped,
        norm.new_ones(1),
        rows.band(),
    )[0, :, 0]
    if rows.factorised:
        both = (counts.symbol + counts.blank).to(grad.dtype)
        grad[:, rows.blank] = torch.sigmoid(of_blank) * both - counts.blank.to(grad.dtype)
    return grad

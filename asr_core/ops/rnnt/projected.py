"""The full RNN-T loss from the two projections that a joiner combines, without an array of all logits.

The cells (utterance, frame, context) inside the lattices are walked in blocks. The forward pass keeps three numbers of each cell:
log p(symbol), log p(blank) and the normaliser. The backward pass computes the logits of a block again, and only of cells that paths
visit; with counts c_x and c_y of a cell's symbol v and blank, the gradient with respect to its logits z is ::

    softmax(z) (c_x + c_y) - c_x [v] - c_y [blank]

and of a factorised blank (Variani et al. 2020, "Hybrid autoregressive transducer") ::

    blank: sigmoid(z_blank) (c_x + c_y) - c_y;  others: softmax of the others (z) c_x - c_x [v]
"""

from types import ModuleType
from typing import Any, Callable, Iterator, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.rnnt import torch_backend
from asr_core.ops.rnnt.functions import full_precision, symbol_counts, usable_gradient
from asr_core.ops.rnnt.lattice import Lattice

# Floating-point numbers that a block's hidden vectors and logits may be, on the CPU (whose caches they should fit) and elsewhere.
_CPU_BLOCK, _OTHER_BLOCK = 1 << 22, 1 << 26


class Output(NamedTuple):
    """How a joiner makes logits of its projections.

    Attributes:
      combine: (M, J1), (M, J1) -> (M, J2), row by row.
      factorised: whether the blank has a probability of its own, sigmoid(its logit), beside a softmax over the others.
      block_cells: cells per block; None chooses.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    factorised: bool
    block_cells: Optional[int]


class Projected(torch.autograd.Function):
    """Losses (B,) of lattices with logits ``combine(am[b, t], lm[b, s]) weight^T + bias``; am (B, T, J1), lm (B, S + 1, J1)."""

    @staticmethod
    def forward(
        ctx: Any,
        am: Tensor,
        lm: Tensor,
        weight: Tensor,
        bias: Tensor,
        lattice: Lattice,
        output: Output,
        backend: ModuleType,
    ) -> Tensor:
        with full_precision(am):
            shape = (am.shape[0], am.shape[1], lm.shape[1])
            # the compiled back end keeps scores in float64
            px, py, norm = am.new_zeros(
                3, *shape, dtype=am.dtype if backend is torch_backend else torch.float64
            ).unbind(0)
            labels = F.pad(lattice.symbols, (0, 1), value=lattice.blank)
            for b, t, s in _blocks(_inside(shape, lattice), am, weight, output):
                logits = torch.addmm(bias, output.combine(am[b, t], lm[b, s]), weight.t())
                px[b, t, s], py[b, t, s], norm[b, t, s] = _scores(
                    logits, labels[b, s], lattice.blank, output.factorised, backend
                )
            begins = lattice.symbols.new_zeros(shape[:2])
            total, occ_x, occ_y = backend.band_lattice(px, py, begins, lattice, any(ctx.needs_input_grad))
            loss = total.to(am.dtype)
            if occ_x is not None:
                occ_x, occ_y = occ_x.to(norm.dtype), occ_y.to(norm.dtype)
            ctx.save_for_backward(loss, am, lm, weight, bias, norm, occ_x, occ_y)
            ctx.lattice, ctx.output, ctx.backend = lattice, output, backend
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Optional[Tensor], ...]:
        loss, am, lm, weight, bias, norm, occ_x, occ_y = ctx.saved_tensors
        lattice, output = ctx.lattice, ctx.output
        grads = tuple(torch.zeros_like(x) for x in (am, lm, weight, bias))
        am_rows, lm_rows = grads[0].view(-1, am.shape[2]), grads[1].view(-1, lm.shape[2])
        with full_precision(am):
            scale = usable_gradient(grad_loss, loss).to(norm.dtype)
            # what all other cells could add is less than a rounding error of the sums
            visited = occ_x + occ_y > 0.01 * torch.finfo(am.dtype).eps
            occ_x = symbol_counts(occ_x, lattice)
            labels = F.pad(lattice.symbols, (0, 1), value=lattice.blank)
            for b, t, s in _blocks(visited, am, weight, output):
                with torch.enable_grad():
                    am_cells, lm_cells = (
                        am[b, t].detach().requires_grad_(),
                        lm[b, s].detach().requires_grad_(),
                    )
                    hidden = output.combine(am_cells, lm_cells)
                logits = torch.addmm(bias, hidden.detach(), weight.t())
                counts = (scale[b] * occ_x[b, t, s], scale[b] * occ_y[b, t, s])
                grad = _gradient(
                    logits, labels[b, s], norm[b, t, s], counts, lattice.blank, output.factorised, ctx.backend
                )
                grads[2].addmm_(grad.t(), hidden.detach())
                grads[3].add_(grad.sum(dim=0))
                am_grad, lm_grad = torch.autograd.grad(hidden, (am_cells, lm_cells), grad @ weight)
                am_rows.index_add_(0, b * am.shape[1] + t, am_grad)
                lm_rows.index_add_(0, b * lm.shape[1] + s, lm_grad)
        return (*grads, None, None, None)


def _inside(shape: tuple[int, int, int], lattice: Lattice) -> Tensor:
    """Which cells (B, T, S + 1) lie inside the lattices."""
    s_first, t_first, s_last, t_last = (limit[:, None, None] for limit in lattice.boundary.unbind(1))
    frames = torch.arange(shape[1], device=lattice.boundary.device)[:, None]
    contexts = torch.arange(shape[2], device=lattice.boundary.device)
    return (frames >= t_first) & (frames < t_last) & (contexts >= s_first) & (contexts <= s_last)


def _blocks(cells: Tensor, am: Tensor, weight: Tensor, output: Output) -> Iterator[tuple[Tensor, ...]]:
    """Indices (b, t, s) of the cells (B, T, S + 1) that are True, a block at a time."""
    most = _CPU_BLOCK if am.device.type == "cpu" else _OTHER_BLOCK
    size = output.block_cells or max(64, most // (weight.shape[0] + 2 * weight.shape[1] + 2 * am.shape[2]))
    return (block.unbind(1) for block in cells.nonzero().split(size))


def _row_lattice(labels: Tensor, blank: int) -> tuple[Tensor, Lattice]:
    """M independent cells in the form of a pruned lattice with a window of one: the windows (1, M), and the lattice."""
    num = labels.shape[0]
    boundary = labels.new_tensor([[0, 0, num, num]])
    return torch.arange(num, device=labels.device).unsqueeze(0), Lattice(
        labels.unsqueeze(0), boundary, blank, "regular", 0.0
    )


def _scores(
    logits: Tensor, labels: Tensor, blank: int, factorised: bool, backend: ModuleType
) -> list[Tensor]:
    """log p(label), log p(blank) and the normaliser (all or, factorised, all but the blank), (M,) each; changes ``logits`` (M, V)."""
    of_blank = logits[:, blank].clone()
    if factorised:
        logits[:, blank] = float("-inf")
    px, py, norm = (
        x.view(-1) for x in backend.pruned_scores(logits[None, :, None], *_row_lattice(labels, blank))
    )
    return (
        [px + F.logsigmoid(-of_blank), F.logsigmoid(of_blank).to(py.dtype), norm]
        if factorised
        else [px, py, norm]
    )


def _gradient(
    logits: Tensor,
    labels: Tensor,
    norm: Tensor,
    counts: tuple[Tensor, Tensor],
    blank: int,
    factorised: bool,
    backend: ModuleType,
) -> Tensor:
    """Gradient (M, V) with respect to ``logits`` (M, V), which is changed, of cells with ``norm`` and counts of symbol and blank (M,)."""
    of_blank = logits[:, blank].clone()
    if factorised:
        logits[:, blank] = float("-inf")
    count_x, count_y = counts
    begins, lattice = _row_lattice(labels, blank)
    shaped = [
        x[None, :, None].contiguous()
        for x in (norm, count_x, torch.zeros_like(count_y) if factorised else count_y)
    ]
    grad = backend.pruned_gradient(logits[None, :, None], *shaped, begins, norm.new_ones(1), lattice)[0, :, 0]
    if factorised:
        grad[:, blank] = torch.sigmoid(of_blank) * (count_x + count_y).to(grad.dtype) - count_y.to(grad.dtype)
    return grad

"""The RNN-T losses in Triton kernels, for GPUs; sums are float32 or better.

The functions are those of :class:`asr_core.ops.rnnt.backend.RnntBackend`, where their arguments are
described. They never wait for the device, and add up in a fixed order.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.rnnt import torch_backend
from asr_core.ops.rnnt.backend import BandLoss, BandScores, BlockKernels, Exponentials, Factors, SimpleLoss
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice

lattices = gpu.deferred("rnnt_lattice")
rows = gpu.deferred("rnnt_rows")
windows = gpu.deferred("rnnt_windows")

score_dtype: Optional[torch.dtype] = torch.float32
half_logits = True


def exp_rows(x: Tensor) -> Exponentials:
    """Return the exponentials of the rows of x (B, T, C)."""
    return Exponentials(*rows.exp_rows(x))


def simple_lattice(factors: Factors, lattice: Lattice, want_grad: bool) -> SimpleLoss:
    """Compute losses of factorised lattices, all utterances at once."""
    loss, rest = lattices.factored_lattice(factors, lattice, want_grad)
    if rest is None:
        return SimpleLoss(loss)
    symbol, blank, weights = rest
    return SimpleLoss(loss, Counts(symbol, blank), weights)


def am_gradient(product: Tensor, probs: Tensor, counts: Counts, scale: Tensor, lattice: Lattice) -> Tensor:
    """Return the gradient (B, T, C) of the frames' part of the logits."""
    rows.am_gradient(product, probs, counts, scale, lattice)
    return product


def sum_by_label(x: Tensor, labels: Tensor, num_columns: int) -> Tensor:
    """Return the sums (num_columns,) of x over equal labels."""
    return rows.sum_by_label(x.reshape(-1), labels.reshape(-1), num_columns)


def pruned_scores(logits: Tensor, band: Band) -> BandScores:
    """Return the scores (B, T, R) of symbols and blanks, in float32."""
    num_columns = logits.shape[3]
    scores = BandScores._make(logits.new_empty(3, *logits.shape[:3], dtype=torch.float32).unbind(0))
    rows.scores(logits.contiguous().view(-1, num_columns), band, 0, scores)
    return scores


def band_lattice(scores: BandScores, band: Band, want_grad: bool) -> BandLoss:
    """Compute losses of pruned lattices from scores (B, T, R), all utterances at once."""
    loss, counts = lattices.band_lattice(scores.symbol, scores.blank, band, want_grad)
    return BandLoss(loss) if counts is None else BandLoss(loss, Counts(*counts))


def pruned_gradient(logits: Tensor, norm: Tensor, counts: Counts, scale: Tensor, band: Band) -> Tensor:
    """Return the gradient (B, T, R, C) of the logits."""
    logits = logits.contiguous()
    grad = torch.empty_like(logits)
    flat = (-1, logits.shape[3])
    rows.gradient(logits.view(flat), grad.view(flat), band, 0, norm, counts, scale)
    return grad


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Return the first contexts (B, T) of the windows."""
    symbol, blank = px_grad.transpose(1, 2).contiguous(), py_grad.transpose(1, 2).contiguous()
    return windows.prune_ranges(symbol, blank, boundary.contiguous(), s_range)


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    """Return the rows of ``lm`` as (B, T, R, C)."""
    return windows.gather_contexts(lm, ranges)


def add_contexts(grad: Tensor, ranges: Tensor, first: int, out: Tensor) -> None:
    """Add rows of gradients (M, C) to those of their contexts, out (B, S + 1, C)."""
    windows.add_contexts(grad, ranges, first, out)


def sum_contexts(
    am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Return the sums of am's gradient (B, T, C) and of lm's (B, num_contexts, C)."""
    am_sum, _ = torch_backend.sum_contexts(am_grad, None, ranges, num_contexts)
    if lm_grad is None:
        return am_sum, None
    num_batch, num_columns = lm_grad.shape[0], lm_grad.shape[3]
    out = lm_grad.new_zeros(num_batch, num_contexts, num_columns, dtype=torch.float32)
    windows.add_contexts(lm_grad.reshape(-1, num_columns), ranges, 0, out)
    return am_sum, out.to(lm_grad.dtype)


def _tanh_rows(am: Tensor, lm: Tensor, ranges: Tensor, first: int, end: int, dtype: torch.dtype) -> Tensor:
    out = am.new_empty(end - first, am.shape[2], dtype=dtype)
    windows.hidden_rows(am, lm, ranges, first, out)
    return out


def _block_scores(logits: Tensor, band: Band, first: int, scores: BandScores) -> None:
    rows.scores(logits, band, first, scores)


def _block_gradient(
    logits: Tensor, band: Band, first: int, norm: Tensor, counts: Counts, scale: Tensor
) -> None:
    rows.gradient(logits, logits, band, first, norm, counts, scale)


def _tanh_gradient(hidden: Tensor, grad: Tensor, first: int, s_range: int, am_grad: Tensor) -> None:
    windows.hidden_gradient(hidden, grad, first, s_range, am_grad)


blocks: Optional[BlockKernels] = BlockKernels(_tanh_rows, _tanh_gradient, _block_scores, _block_gradient)

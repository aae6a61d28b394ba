"""The RNN-T losses in compiled CPU kernels, float32 and float64.

The functions are those of :class:`asr_core.ops.rnnt.backend.RnntBackend`, where their arguments are
described.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.rnnt import numba_band, numba_dense, numba_pruning, torch_backend
from asr_core.ops.rnnt.backend import BandLoss, BandScores, BlockKernels, Factors, SimpleLoss
from asr_core.ops.rnnt.lattice import Band, Counts, Lattice

ROW_GRAIN = 16  # rows of a few hundred elements worth a thread

# Float64: log-probabilities of a whole utterance are added up, and rows are read once, so the
# precision costs next to nothing.
score_dtype: Optional[torch.dtype] = torch.float64
half_logits = False
blocks: Optional[BlockKernels] = None


# each a few operations on whole arrays
exp_rows, sum_by_label = torch_backend.exp_rows, torch_backend.sum_by_label
add_contexts = torch_backend.add_contexts


def simple_lattice(factors: Factors, lattice: Lattice, want_grad: bool) -> SimpleLoss:
    """Compute losses of factorised lattices, one utterance after the other."""
    am = factors.am
    num_batch, num_frames, num_columns = am.shape
    num_symbols = lattice.symbols.shape[1]
    num_rows = num_frames + (1 if lattice.regular else 0)
    loss = am.new_empty(num_batch, dtype=torch.float64)
    counted = num_batch if want_grad else 0
    symbol = am.new_empty(counted, num_rows, num_symbols)
    blank, weights = am.new_empty(2, counted, num_frames, num_symbols + 1).unbind()
    # the last context has no symbol: a column more makes the rows of all context parts equally long
    parts = [
        factors.lm_symbol,
        factors.lm_blank,
        factors.lm_max,
        factors.context_symbol,
        factors.context_blank,
    ]
    padded = [torch.nn.functional.pad(x, (0, num_symbols + 1 - x.shape[1])) for x in parts]
    args = numba_dense.SimpleLattice(
        am=am.contiguous(),
        contexts=torch.stack(padded, dim=1),
        frames=torch.stack((factors.am_max, factors.frame), dim=1),
        dot=factors.dot,
        log_dot=factors.log_dot,
        symbols=lattice.symbols,
        boundary=lattice.boundary,
        losses=loss,
        occ_x=symbol,
        occ_y=blank,
        weights=weights,
        itemsize=am.element_size(),
        T=num_frames,
        S=num_symbols,
        C=num_columns,
        rows=num_rows,
        blank=lattice.blank,
        skew=int(lattice.regular),
        constrained=int(lattice.constrained),
        want_grad=int(want_grad),
        scale=factors.scale,
        am_scale=factors.am_scale,
        delay_penalty=max(lattice.delay_penalty, 0.0),
    )
    numba_dense.simple_lattice(num_batch, 1, args)
    return SimpleLoss(loss, Counts(symbol, blank), weights) if want_grad else SimpleLoss(loss)


def am_gradient(product: Tensor, probs: Tensor, counts: Counts, scale: Tensor, lattice: Lattice) -> Tensor:
    """Return the gradient (B, T, C) of the frames' part of the logits."""
    num_batch, num_frames, num_columns = product.shape
    args = numba_dense.AmGradient(
        grad=product,
        probs=probs,
        occ_x=counts.symbol,
        occ_y=counts.blank.contiguous(),
        symbols=lattice.symbols,
        scale=scale.contiguous(),
        itemsize=product.element_size(),
        T=num_frames,
        S=lattice.symbols.shape[1],
        C=num_columns,
        rows=counts.symbol.shape[1],
        blank=lattice.blank,
    )
    numba_dense.am_gradient(num_batch * num_frames, ROW_GRAIN, args)
    return product


def _band_rows(logits: Tensor, norm: Tensor, counts: Counts, band: Band) -> numba_band.BandRows:
    """Return the arguments of both row kernels; the logits (B, T, R, C) are contiguous."""
    num_batch, num_frames, s_range, num_columns = logits.shape
    return numba_band.BandRows(
        logits=logits,
        grad=0,
        symbols=band.lattice.symbols,
        s_begin=band.s_begin,
        boundary=band.lattice.boundary,
        norm=norm,
        x=counts.symbol,
        y=counts.blank,
        scale=0,
        itemsize=logits.element_size(),
        B=num_batch,
        T=num_frames,
        S=band.lattice.symbols.shape[1],
        R=s_range,
        C=num_columns,
        blank=band.lattice.blank,
    )


def pruned_scores(logits: Tensor, band: Band) -> BandScores:
    """Return the scores (B, T, R) of symbols and blanks, in float64."""
    logits = logits.contiguous()
    px, py, norm = logits.new_empty(3, *logits.shape[:3], dtype=torch.float64).unbind(0)
    numba_band.pruned_scores(px.numel(), ROW_GRAIN, _band_rows(logits, norm, Counts(px, py), band))
    return BandScores(px, py, norm)


def band_lattice(scores: BandScores, band: Band, want_grad: bool) -> BandLoss:
    """Compute losses of pruned lattices from scores (B, T, R), one utterance after the other."""
    px, py, lattice = scores.symbol, scores.blank, band.lattice
    num_batch, num_frames, s_range = px.shape
    loss = px.new_empty(num_batch)
    counts = Counts(torch.empty_like(px), torch.empty_like(px)) if want_grad else None
    args = numba_band.BandRecursion(
        px=px,
        py=py,
        s_begin=band.s_begin,
        boundary=lattice.boundary,
        losses=loss,
        occ_x=0 if counts is None else counts.symbol,
        occ_y=0 if counts is None else counts.blank,
        scratch=px.new_empty(num_batch, 2, num_frames + 1, s_range),
        T=num_frames,
        R=s_range,
        skew=int(lattice.regular),
        constrained=int(lattice.constrained),
        delay_penalty=max(lattice.delay_penalty, 0.0),
    )
    numba_band.band_lattice(num_batch, 1, args)
    return BandLoss(loss, counts)


def pruned_gradient(logits: Tensor, norm: Tensor, counts: Counts, scale: Tensor, band: Band) -> Tensor:
    """Return the gradient (B, T, R, C) of the logits."""
    logits = logits.contiguous()
    grad = torch.empty_like(logits)
    args = _band_rows(logits, norm, counts, band)._replace(grad=grad, scale=scale.double())
    numba_band.pruned_gradient(norm.numel(), ROW_GRAIN, args)
    return grad


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Return the first contexts (B, T) of the windows."""
    occ_x, occ_y = px_grad.transpose(1, 2).contiguous(), py_grad.transpose(1, 2).contiguous()
    num_batch, num_frames, num_contexts = occ_y.shape
    begins = boundary.new_empty(num_batch, num_frames)
    args = numba_pruning.PruneRanges(
        occ_x=occ_x,
        occ_y=occ_y,
        boundary=boundary.contiguous(),
        begins=begins,
        itemsize=occ_y.element_size(),
        T=num_frames,
        S=num_contexts - 1,
        rows=occ_x.shape[1],
        R=s_range,
        # where a symbol costs a frame, a path cannot follow a window that moves by more than one
        most=1 if occ_x.shape[1] == num_frames else s_range - 1,
    )
    numba_pruning.prune_ranges(num_batch, 1, args)
    return begins


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    """Return the rows of ``lm`` as (B, T, R, C)."""
    lm = lm.contiguous()
    num_batch, num_frames, s_range = ranges.shape
    out = lm.new_empty(num_batch, num_frames, s_range, lm.shape[2])
    args = numba_pruning.GatherContexts(
        lm=lm,
        ranges=ranges,
        out=out,
        words=lm.shape[2] * lm.element_size() // 4,
        per_utterance=num_frames * s_range,
        contexts=lm.shape[1],
    )
    numba_pruning.gather_contexts(ranges.numel(), 4 * ROW_GRAIN, args)
    return out


def sum_contexts(
    am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Return the sums of am's gradient (B, T, C) and of lm's (B, num_contexts, C)."""
    if am_grad is not None and lm_grad is not None and am_grad.shape != lm_grad.shape:
        am_sum, _ = sum_contexts(am_grad, None, ranges, num_contexts)
        _, lm_sum = sum_contexts(None, lm_grad, ranges, num_contexts)
        return am_sum, lm_sum
    given = am_grad if am_grad is not None else lm_grad
    if given is None:
        return None, None
    num_batch, num_frames, s_range, num_columns = given.shape
    am_sum = None if am_grad is None else given.new_empty(num_batch, num_frames, num_columns)
    lm_sum = None if lm_grad is None else given.new_zeros(num_batch, num_contexts, num_columns)
    # one block of columns per thread at least
    width = num_columns if num_batch > 2 * torch.get_num_threads() else max(64, -(-num_columns // 8))
    args = numba_pruning.SumContexts(
        am_grad=0 if am_grad is None else am_grad.contiguous(),
        lm_grad=0 if lm_grad is None else lm_grad.contiguous(),
        ranges=ranges,
        am_sum=0 if am_sum is None else am_sum,
        lm_sum=0 if lm_sum is None else lm_sum,
        itemsize=given.element_size(),
        T=num_frames,
        R=s_range,
        contexts=num_contexts,
        C=num_columns,
        width=width,
    )
    numba_pruning.sum_contexts(num_batch * -(-num_columns // width), 1, args)
    return am_sum, lm_sum

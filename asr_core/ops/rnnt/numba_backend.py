"""The RNN-T losses in compiled CPU kernels, float32 and float64; the functions are those of the torch back end."""

from typing import Optional

import torch
from torch import Tensor

from asr_core.ops.rnnt import numba_band, numba_dense, numba_pruning
from asr_core.ops.rnnt.lattice import Factors, Lattice

ROW_GRAIN = 16  # rows of a few hundred elements worth a thread


def simple_lattice(
    factors: Factors, lattice: Lattice, want_grad: bool
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
    am = factors.am
    num_batch, num_frames, num_columns = am.shape
    num_symbols = lattice.symbols.shape[1]
    x_rows = num_frames + (1 if lattice.regular else 0)
    loss = am.new_empty(num_batch, dtype=torch.float64)
    counted = num_batch if want_grad else 0
    occ_x, occ_y = (
        am.new_empty(counted, x_rows, num_symbols),
        am.new_empty(2, counted, num_frames, num_symbols + 1),
    )
    sizes = [am.element_size(), num_frames, num_symbols, num_columns, x_rows]
    options = [lattice.blank, int(lattice.regular), int(lattice.constrained), int(want_grad)]
    # the last context has no symbol: a column more makes the rows of all context parts equally long
    parts = [
        factors.lm_symbol,
        factors.lm_blank,
        factors.lm_max,
        factors.context_symbol,
        factors.context_blank,
    ]
    contexts = torch.stack(
        [torch.nn.functional.pad(x, (0, num_symbols + 1 - x.shape[1])) for x in parts], dim=1
    )
    frames = torch.stack((factors.am_max, factors.frame), dim=1)
    tensors = [
        am.contiguous(),
        contexts,
        frames,
        factors.dot,
        factors.log_dot,
        lattice.symbols,
        lattice.boundary,
    ]
    floats = [factors.scale, factors.am_scale, max(lattice.delay_penalty, 0.0)]
    numba_dense.simple_lattice(num_batch, 1, [*sizes, *options, *tensors, loss, occ_x, occ_y], floats)
    return (loss, occ_x, occ_y[0], occ_y[1]) if want_grad else (loss, None, None, None)


def am_gradient(
    product: Tensor, probs: Tensor, occ_x: Tensor, occ_y: Tensor, scale: Tensor, lattice: Lattice
) -> Tensor:
    num_batch, num_frames, num_columns = product.shape
    sizes = [
        product.element_size(),
        num_frames,
        lattice.symbols.shape[1],
        num_columns,
        occ_x.shape[1],
        lattice.blank,
    ]
    tensors = [product, probs, occ_x, occ_y.contiguous(), lattice.symbols, scale.contiguous()]
    numba_dense.am_gradient(num_batch * num_frames, ROW_GRAIN, [*sizes, *tensors])
    return product


def _band_sizes(logits: Tensor, lattice: Lattice) -> list[int]:
    num_batch, num_frames, s_range, num_columns = logits.shape
    return [
        logits.element_size(),
        num_batch,
        num_frames,
        lattice.symbols.shape[1],
        s_range,
        num_columns,
        lattice.blank,
    ]


def pruned_scores(logits: Tensor, s_begin: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.contiguous()
    px, py, norm = logits.new_empty(3, *logits.shape[:3], dtype=torch.float64).unbind(0)
    tensors = [logits, lattice.symbols, s_begin, lattice.boundary, px, py, norm]
    numba_band.pruned_scores(px.numel(), ROW_GRAIN, [*_band_sizes(logits, lattice), *tensors])
    return px, py, norm


def band_lattice(
    px: Tensor, py: Tensor, s_begin: Tensor, lattice: Lattice, want_grad: bool
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    num_batch, num_frames, s_range = px.shape
    loss, scratch = px.new_empty(num_batch), px.new_empty(num_batch, 2, num_frames + 1, s_range)
    occ_x, occ_y = (torch.empty_like(px), torch.empty_like(px)) if want_grad else (None, None)
    sizes = [num_frames, s_range, int(lattice.regular), int(lattice.constrained), int(want_grad)]
    tensors = [
        px,
        py,
        s_begin,
        lattice.boundary,
        loss,
        occ_x if want_grad else 0,
        occ_y if want_grad else 0,
        scratch,
    ]
    numba_band.band_lattice(num_batch, 1, [*sizes, *tensors], [max(lattice.delay_penalty, 0.0)])
    return loss, occ_x, occ_y


def pruned_gradient(
    logits: Tensor,
    norm: Tensor,
    occ_x: Tensor,
    occ_y: Tensor,
    s_begin: Tensor,
    scale: Tensor,
    lattice: Lattice,
) -> Tensor:
    logits = logits.contiguous()
    grad = torch.empty_like(logits)
    tensors = [logits, grad, lattice.symbols, s_begin, lattice.boundary, norm, occ_x, occ_y, scale.double()]
    numba_band.pruned_gradient(norm.numel(), ROW_GRAIN, [*_band_sizes(logits, lattice), *tensors])
    return grad


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    occ_x, occ_y = px_grad.transpose(1, 2).contiguous(), py_grad.transpose(1, 2).contiguous()
    num_batch, num_frames, num_contexts = occ_y.shape
    x_rows = occ_x.shape[1]
    most = 1 if x_rows == num_frames else s_range - 1
    begins = boundary.new_empty(num_batch, num_frames)
    sizes = [occ_y.element_size(), num_frames, num_contexts - 1, x_rows, s_range, most]
    numba_pruning.prune_ranges(num_batch, 1, [*sizes, occ_x, occ_y, boundary.contiguous(), begins])
    return begins


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    lm = lm.contiguous()
    num_batch, num_frames, s_range = ranges.shape
    out = lm.new_empty(num_batch, num_frames, s_range, lm.shape[2])
    words = lm.shape[2] * lm.element_size() // 4
    numba_pruning.gather_contexts(
        ranges.numel(), 4 * ROW_GRAIN, [words, num_frames * s_range, lm.shape[1], lm, ranges, out]
    )
    return out


def sum_contexts(
    am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
) -> tuple[Optional[Tensor], Optional[Tensor]]:
    if am_grad is not None and lm_grad is not None and am_grad.shape != lm_grad.shape:
        return sum_contexts(am_grad, None, ranges, num_contexts)[0], sum_contexts(
            None, lm_grad, ranges, num_contexts
        )[1]
    given = am_grad if am_grad is not None else lm_grad
    if given is None:
        return None, None
    num_batch, num_frames, s_range, num_columns = given.shape
    am_sum = None if am_grad is None else given.new_empty(num_batch, num_frames, num_columns)
    lm_sum = None if lm_grad is None else given.new_zeros(num_batch, num_contexts, num_columns)
    # one block of columns per thread at least
    width = num_columns if num_batch > 2 * torch.get_num_threads() else max(64, -(-num_columns // 8))
    sizes = [given.element_size(), num_frames, s_range, num_contexts, num_columns, width]
    grads = [0 if grad is None else grad.contiguous() for grad in (am_grad, lm_grad)]
    sums = [0 if total is None else total for total in (am_sum, lm_sum)]
    numba_pruning.sum_contexts(num_batch * -(-num_columns // width), 1, [*sizes, *grads, ranges, *sums])
    return am_sum, lm_sum

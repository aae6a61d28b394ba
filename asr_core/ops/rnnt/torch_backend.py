"""The RNN-T losses in plain torch operations, for any device and float type.

The reference for the compiled back ends.

The functions are those of :class:`asr_core.ops.rnnt.backend.RnntBackend`, where their arguments are
described.

Recursions run over the diagonals of all lattices at once. A regular lattice is skewed first (row n
holds the cells with s + t = n), a modified one has one row per frame; after that both are the same
recursion ::

    p[n, s] = log(exp(p[n - 1, s - 1] + x[n, s]) + exp(p[n - 1, s] + y[n, s]))

where x[n, s] and y[n, s] score the two arcs that arrive at cell (n, s). The forward pass keeps, for
each cell, which share of its probability came by which arc; the occupation counts are products of
these shares, handed back from the last cell.

On most frames several pruning windows hold all probability up to rounding errors, and the largest
of these sums is taken. To choose the same windows as k2, float32 scores are added and shared out in
float32 by k2's formulas: x's share is exp(its score - p), y's is the rest.
"""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.rnnt.backend import BandLoss, BandScores, BlockKernels, Exponentials, Factors, SimpleLoss
from asr_core.ops.rnnt.lattice import (
    LARGEST_WEIGHT,
    NEVER,
    UNREACHED,
    Band,
    Counts,
    Lattice,
    fold_forced_blanks,
)

score_dtype: Optional[torch.dtype] = None
half_logits = False
blocks: Optional[BlockKernels] = None


def exp_rows(x: Tensor) -> Exponentials:
    """Return the exponentials of the rows of x (B, T, C)."""
    largest = x.amax(dim=-1)
    probs = (x - largest.unsqueeze(-1)).exp_()
    total = probs.sum(dim=-1)
    bad = ~torch.isfinite(total)
    if x.device.type != "cpu" or bad.any():  # only the CPU answers without a wait
        probs.masked_fill_(bad.unsqueeze(-1), 0.0)
        largest, total = largest.masked_fill(bad, float("nan")), total.masked_fill(bad, 1.0)
    return Exponentials(probs, largest, total)


def sum_by_label(x: Tensor, labels: Tensor, num_columns: int) -> Tensor:
    """Return the sums (num_columns,) of x over equal labels."""
    return x.new_zeros(num_columns).index_add_(0, labels.reshape(-1), x.reshape(-1))


def simple_lattice(factors: Factors, lattice: Lattice, want_grad: bool) -> SimpleLoss:
    """Compute losses of factorised lattices from arrays (B, T, S + 1) of arc scores."""
    am, scale = factors.am, factors.scale
    norm = factors.log_dot + factors.lm_max.unsqueeze(1) + factors.am_max.unsqueeze(2)  # (B, T, S + 1)
    num_symbols = lattice.symbols.shape[1]
    am_symbol = am.gather(2, lattice.symbols.unsqueeze(1).expand(-1, am.shape[1], -1))  # (B, T, S)
    am_blank = am[:, :, lattice.blank].unsqueeze(2)  # (B, T, 1)
    x, y = factors.context_symbol.unsqueeze(1), factors.context_blank.unsqueeze(1)
    if scale != 0.0:
        x = (am_symbol + factors.lm_symbol.unsqueeze(1) - norm[:, :, :num_symbols]) * scale + x
        y = (am_blank + factors.lm_blank.unsqueeze(1) - norm) * scale + y
    if factors.am_scale != 0.0:
        frame = factors.frame.unsqueeze(2)
        x, y = x + (factors.am_scale * am_symbol + frame), y + (factors.am_scale * am_blank + frame)
    loss, counts = dense_lattice(x.expand_as(am_symbol), y.expand_as(norm), lattice, want_grad)
    if counts is None:
        return SimpleLoss(loss)
    symbol = torch.nn.functional.pad(counts.symbol[:, : am.shape[1]], (0, 1))  # (B, T, S + 1)
    weights = scale * (fold_forced_blanks(counts, lattice) + symbol) / factors.dot
    return SimpleLoss(loss, counts, weights.clamp_(max=LARGEST_WEIGHT))


def am_gradient(product: Tensor, probs: Tensor, counts: Counts, scale: Tensor, lattice: Lattice) -> Tensor:
    """Return the gradient (B, T, C) of the frames' part of the logits."""
    grad = product.mul_(probs)
    num_frames = grad.shape[1]
    index = lattice.symbols.unsqueeze(1).expand(-1, num_frames, -1)  # (B, T, S)
    grad.scatter_add_(2, index, -scale[:, None, None] * counts.symbol[:, :num_frames])
    grad[:, :, lattice.blank] -= scale.unsqueeze(1) * counts.blank.sum(dim=2)
    return grad


def pruned_scores(logits: Tensor, band: Band) -> BandScores:
    """Return the scores (B, T, R) of symbols and blanks."""
    norm = torch.logsumexp(logits, dim=3)
    # a row with +inf or of nothing but -inf has no distribution
    norm = torch.where(torch.isinf(norm), torch.full_like(norm, float("nan")), norm)
    s_range = logits.shape[2]
    px = logits.gather(3, band.labels(s_range).unsqueeze(3)).squeeze(3) - norm
    last = band.positions(s_range) >= band.lattice.symbols.shape[1]
    symbol = torch.where(last, torch.full_like(px, NEVER), px)
    return BandScores(symbol, logits[..., band.lattice.blank] - norm, norm)


def band_lattice(scores: BandScores, band: Band, want_grad: bool) -> BandLoss:
    """Spread the scores (B, T, R) of the band over full lattices, and sum these."""
    px, py, lattice = scores.symbol, scores.blank, band.lattice
    num_batch, num_frames, s_range = px.shape
    num_symbols = lattice.symbols.shape[1]
    if px.device.type != "mps":  # which has no float64
        px, py = px.double(), py.double()
    where = band.positions(s_range)
    never = px.new_full((num_batch, num_frames, num_symbols + 1), NEVER)
    x, y = never.scatter(2, where, px), never.scatter(2, where, py)
    loss, counts = dense_lattice(x[:, :, :num_symbols], y, lattice, want_grad)
    if counts is None:
        return BandLoss(loss)
    blank = fold_forced_blanks(counts, lattice)
    symbol = torch.nn.functional.pad(counts.symbol[:, :num_frames], (0, 1))
    return BandLoss(loss, Counts(symbol.gather(2, where), blank.gather(2, where)))


def pruned_gradient(logits: Tensor, norm: Tensor, counts: Counts, scale: Tensor, band: Band) -> Tensor:
    """Return the gradient (B, T, R, C) of the logits: softmax times the counts of a row, minus each
    arc's own.
    """
    symbol, blank = ((scale[:, None, None] * count).to(logits.dtype) for count in counts)
    both = (symbol + blank).unsqueeze(3)  # (B, T, R, 1)
    grad = (logits - norm.unsqueeze(3)).exp_().mul_(both)
    # rows outside the lattice may hold anything, NaN too
    grad.masked_fill_(both == 0, 0)
    grad.scatter_add_(3, band.labels(logits.shape[2]).unsqueeze(3), -symbol.unsqueeze(3))
    grad[..., band.lattice.blank] -= blank
    return grad


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Return the first contexts (B, T): the best window of each frame, then moved so that a path
    can follow them.
    """
    num_frames = py_grad.shape[2]
    num_begins = py_grad.shape[1] - s_range + 1
    inside = py_grad[:, :num_begins].clone()  # (B, S + 2 - R, T)
    for offset in range(1, s_range):
        inside = inside + py_grad[:, offset : offset + num_begins]
    inside[:, 1:] -= px_grad[:, : num_begins - 1, :num_frames]
    s_begin = inside.argmax(dim=1)
    frames = torch.arange(num_frames, device=py_grad.device)
    last = (boundary[:, 2:3] - s_range + 1).clamp(min=0)
    s_begin = torch.where(frames < boundary[:, 3:4] - 1, s_begin, last)
    # never backwards, and forwards by at most one step less than the window (by one where a symbol
    # costs a frame)
    step = (1 if px_grad.shape[2] == num_frames else s_range - 1) * frames
    s_begin = _cummin_from_end(s_begin)
    return step - _cummin_from_end(step - s_begin).clamp(min=0)


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    """Return the rows of ``lm`` as (B, T, R, C)."""
    return lm[torch.arange(lm.shape[0], device=lm.device)[:, None, None], ranges]


def sum_contexts(
    am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Return the sums of am's gradient (B, T, C) and of lm's (B, num_contexts, C)."""
    am_sum = None if am_grad is None else am_grad.sum(dim=2)
    if lm_grad is None:
        return am_sum, None
    num_batch, channels = lm_grad.shape[0], lm_grad.shape[3]
    rows = ranges + num_contexts * torch.arange(num_batch, device=ranges.device)[:, None, None]
    lm_sum = lm_grad.new_zeros(num_batch * num_contexts, channels)
    lm_sum.index_add_(0, rows.reshape(-1), lm_grad.reshape(-1, channels))
    return am_sum, lm_sum.reshape(num_batch, num_contexts, channels)


def add_contexts(grad: Tensor, ranges: Tensor, first: int, out: Tensor) -> None:
    """Add rows of gradients (M, C) to those of their contexts, out (B, S + 1, C)."""
    num_batch, contexts, channels = out.shape
    rows = ranges + contexts * torch.arange(num_batch, device=ranges.device)[:, None, None]
    own = rows.view(-1)[first : first + grad.shape[0]]
    out.view(-1, channels).index_add_(0, own, grad.to(out.dtype))


class DenseLoss(NamedTuple):
    """Losses (B,) of full lattices and, if wanted, counts of symbols (B, T + 1 or T, S) and blanks
    (B, T, S + 1).
    """

    loss: Tensor
    counts: Optional[Counts] = None


def dense_lattice(px: Tensor, py: Tensor, lattice: Lattice, want_grad: bool) -> DenseLoss:
    """Sum all paths of each lattice.

    Args:
      px: (B, T, S), scores of the symbols, before delay penalty and forced blanks.
      py: (B, T, S + 1), scores of the blanks.
      lattice: the lattices.
      want_grad: whether to compute the counts.
    """
    num_batch, num_frames, num_symbols = px.shape
    px, py = _limit(px, py, lattice)
    skew = 1 if lattice.regular else 0
    num_rows = num_frames + skew * num_symbols
    x = px.new_full((num_rows + 1, num_batch, num_symbols + 1), NEVER)
    y = x.clone()
    frames = torch.arange(num_frames, device=px.device)[:, None]
    contexts = torch.arange(num_symbols + 1, device=px.device)
    arrival = frames + 1 + skew * contexts  # row at which the arcs that leave (t, s) arrive
    x[arrival[:, :num_symbols], :, contexts[1:]] = px.permute(1, 2, 0)
    y[arrival, :, contexts] = py.permute(1, 2, 0)

    s_first, t_first, s_last, t_last = lattice.boundary.unbind(1)
    utterances = torch.arange(num_batch, device=px.device)
    score = torch.full_like(x, NEVER)
    score[t_first + skew * s_first, utterances, s_first] = 0.0
    nothing, zero = px.new_full((num_batch, 1), NEVER), px.new_zeros(())
    for n in range(1, num_rows + 1):  # all diagonals of all lattices, (B, S + 1) each
        by_x = torch.cat((nothing, score[n - 1, :, :-1]), dim=1) + x[n]
        by_y = score[n - 1] + y[n]
        # the maximum keeps the first cell's 0, where no arc arrives
        score[n] = torch.maximum(score[n], torch.logaddexp(by_x, by_y))
        x[n] = (by_x - score[n]).exp()
        y[n] = torch.where(by_y > UNREACHED, 1.0 - x[n], zero)
    last_row = t_last + skew * s_last
    loss = -score[last_row, utterances, s_last]
    loss = torch.where(loss > -UNREACHED, torch.full_like(loss, float("inf")), loss)
    if not want_grad:
        return DenseLoss(loss)

    finite = torch.isfinite(loss)[:, None]
    x, y = (torch.where(finite, share, torch.zeros_like(share)) for share in (x, y))
    ends = torch.zeros_like(x)
    ends[last_row, utterances, s_last] = 1.0
    count = ends[num_rows]
    for n in range(num_rows, 0, -1):
        x[n] *= count
        y[n] *= count
        count = y[n] + torch.nn.functional.pad(x[n, :, 1:], (0, 1)) + ends[n - 1]
    occ_x = x[arrival[:, :num_symbols], :, contexts[1:]].permute(2, 0, 1)
    occ_y = y[arrival, :, contexts].permute(2, 0, 1)
    return DenseLoss(loss, Counts(torch.nn.functional.pad(occ_x, (0, 0, 0, skew)), occ_y))


def _limit(px: Tensor, py: Tensor, lattice: Lattice) -> Tuple[Tensor, Tensor]:
    """Add forced blanks and delay penalty to the scores (B, T, S) and (B, T, S + 1).

    Make NEVER of all outside the boundary.
    """
    num_frames, num_symbols = px.shape[1:]
    if lattice.constrained:
        px = px + py[:, :, 1:]
    if lattice.delay_penalty > 0.0:
        frames = torch.arange(num_frames, device=px.device)[None, :, None]
        t_last = lattice.boundary[:, 3, None, None]
        px = px + lattice.delay_penalty * ((t_last - 1) / 2 - frames).to(px.dtype)
    inside = lattice.inside(num_frames, num_symbols + 1)
    never = torch.full_like(py, NEVER)
    py = torch.where(inside, py.clamp(min=NEVER), never)
    both = inside[:, :, :num_symbols] & inside[:, :, 1:]
    return torch.where(both, px.clamp(min=NEVER), never[:, :, :num_symbols]), py


def _cummin_from_end(x: Tensor) -> Tensor:
    """Return the minima of x (B, T) from each frame to the last."""
    return x.flip(-1).cummin(dim=-1).values.flip(-1)

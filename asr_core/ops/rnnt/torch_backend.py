"""The RNN-T losses in plain torch operations, for any device and float type; the reference for the compiled back ends.

Recursions run over the diagonals of all lattices at once. A regular lattice is skewed first (row n holds the cells with
s + t = n), a modified one has one row per frame; after that both are the same recursion ::

    p[n, s] = log(exp(p[n - 1, s - 1] + x[n, s]) + exp(p[n - 1, s] + y[n, s]))

where x[n, s] and y[n, s] score the two arcs that arrive at cell (n, s). The forward pass keeps, for each cell, which share of
its probability came by which arc; the occupation counts are products of these shares, handed back from the last cell.

On most frames several pruning windows hold all probability but for rounding errors, and the largest of these sums is taken. To
choose the same windows as k2, float32 scores are added and shared out in float32 by k2's formulas: x's share is
exp(its score - p), y's is the rest.
"""

from typing import Optional

import torch
from torch import Tensor

from asr_core.ops.rnnt.lattice import LARGEST_WEIGHT, Factors, Lattice, fold_forced_blanks

NEVER = -1e30  # log(0), finite so that differences of two of them are no NaN
UNREACHED = -1e29


def simple_lattice(
    factors: Factors, lattice: Lattice, want_grad: bool
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
    """Losses (B,) of factorised lattices.

    Returns:
      the losses and, with ``want_grad``, occupation counts of the symbols (B, T + 1 or T, S) and the blanks (B, T, S + 1), and the
      normalisers' weights ``scale * count / dot`` (B, T, S + 1).
    """
    am, scale = factors.am, factors.scale
    norm = factors.log_dot + factors.lm_max.unsqueeze(1) + factors.am_max.unsqueeze(2)
    num_symbols = lattice.symbols.shape[1]
    am_symbol = am.gather(2, lattice.symbols.unsqueeze(1).expand(-1, am.shape[1], -1))
    am_blank = am[:, :, lattice.blank].unsqueeze(2)
    x, y = factors.context_symbol.unsqueeze(1), factors.context_blank.unsqueeze(1)
    if scale != 0.0:
        x = (am_symbol + factors.lm_symbol.unsqueeze(1) - norm[:, :, :num_symbols]) * scale + x
        y = (am_blank + factors.lm_blank.unsqueeze(1) - norm) * scale + y
    if factors.am_scale != 0.0:
        frame = factors.frame.unsqueeze(2)
        x, y = x + (factors.am_scale * am_symbol + frame), y + (factors.am_scale * am_blank + frame)
    loss, occ_x, occ_y = dense_lattice(x.expand_as(am_symbol), y.expand_as(norm), lattice, want_grad)
    if occ_x is None:
        return loss, None, None, None
    weights = fold_forced_blanks(occ_x, occ_y, lattice) + torch.nn.functional.pad(
        occ_x[:, : am.shape[1]], (0, 1)
    )
    return loss, occ_x, occ_y, (scale * weights / factors.dot).clamp_(max=LARGEST_WEIGHT)


def am_gradient(
    product: Tensor, probs: Tensor, occ_x: Tensor, occ_y: Tensor, scale: Tensor, lattice: Lattice
) -> Tensor:
    """``product * probs`` minus the scaled occupation counts at the symbols' and the blank's columns, in place.

    Args:
      product, probs: (B, T, C).
      occ_x, occ_y: counts (B, >= T, S), (B, T, S + 1).
      scale: (B,).
    """
    grad = product.mul_(probs)
    num_frames = grad.shape[1]
    index = lattice.symbols.unsqueeze(1).expand(-1, num_frames, -1)
    grad.scatter_add_(2, index, -scale[:, None, None] * occ_x[:, :num_frames])
    grad[:, :, lattice.blank] -= scale.unsqueeze(1) * occ_y.sum(dim=2)
    return grad


def pruned_scores(logits: Tensor, s_begin: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the arcs of pruned lattices.

    Args:
      logits: (B, T, s_range, C).
      s_begin: (B, T), the s of each frame's first row.

    Returns:
      those of the symbols (B, T, s_range) (log(0) at s = S), of the blank (B, T, s_range), and the log normalisers.
    """
    norm = torch.logsumexp(logits, dim=3)
    # a row with +inf or of nothing but -inf has no distribution
    norm = torch.where(torch.isinf(norm), torch.full_like(norm, float("nan")), norm)
    px = logits.gather(3, _labels(logits, s_begin, lattice).unsqueeze(3)).squeeze(3) - norm
    last = _positions(logits, s_begin) >= lattice.symbols.shape[1]
    return torch.where(last, torch.full_like(px, NEVER), px), logits[..., lattice.blank] - norm, norm


def band_lattice(
    px: Tensor, py: Tensor, s_begin: Tensor, lattice: Lattice, want_grad: bool
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Losses (B,) of pruned lattices, and with ``want_grad`` their counts of symbols and of all blanks (B, T, s_range)."""
    num_batch, num_frames, _ = px.shape
    num_symbols = lattice.symbols.shape[1]
    if px.device.type != "mps":  # which has no float64
        px, py = px.double(), py.double()
    where = _positions(px, s_begin)
    shape = (num_batch, num_frames, num_symbols + 1)
    x = torch.full(shape, NEVER, dtype=px.dtype, device=px.device).scatter(2, where, px)
    y = torch.full(shape, NEVER, dtype=py.dtype, device=py.device).scatter(2, where, py)
    loss, occ_x, occ_y = dense_lattice(x[:, :, :num_symbols], y, lattice, want_grad)
    if occ_x is None:
        return loss, None, None
    occ_y = fold_forced_blanks(occ_x, occ_y, lattice)
    occ_x = torch.nn.functional.pad(occ_x[:, :num_frames], (0, 1))
    return loss, occ_x.gather(2, where), occ_y.gather(2, where)


def pruned_gradient(
    logits: Tensor,
    norm: Tensor,
    occ_x: Tensor,
    occ_y: Tensor,
    s_begin: Tensor,
    scale: Tensor,
    lattice: Lattice,
) -> Tensor:
    """Gradient (B, T, s_range, C) of ``sum(scale * loss)`` with respect to the logits."""
    scale = scale[:, None, None]
    occ_x, occ_y = (scale * occ_x).to(logits.dtype), (scale * occ_y).to(logits.dtype)
    both = (occ_x + occ_y).unsqueeze(3)
    grad = (logits - norm.unsqueeze(3)).exp_().mul_(both)
    # rows outside the lattice may hold anything, NaN too
    grad.masked_fill_(both == 0, 0)
    grad.scatter_add_(3, _labels(logits, s_begin, lattice).unsqueeze(3), -occ_x.unsqueeze(3))
    grad[..., lattice.blank] -= occ_y
    return grad


def prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """First positions (B, T) of the pruning windows; the arguments of ``get_rnnt_prune_ranges`` with its ``s_range`` in effect."""
    num_frames = py_grad.shape[2]
    num_begins = py_grad.shape[1] - s_range + 1
    inside = py_grad[:, :num_begins].clone()
    for offset in range(1, s_range):
        inside = inside + py_grad[:, offset : offset + num_begins]
    inside[:, 1:] -= px_grad[:, : num_begins - 1, :num_frames]
    s_begin = inside.argmax(dim=1)
    frames = torch.arange(num_frames, device=py_grad.device)
    last = (boundary[:, 2:3] - s_range + 1).clamp(min=0)
    s_begin = torch.where(frames < boundary[:, 3:4] - 1, s_begin, last)
    # never backwards, and forwards by at most one step less than the window (by one where a symbol costs a frame)
    step = (1 if px_grad.shape[2] == num_frames else s_range - 1) * frames
    s_begin = _cummin_from_end(s_begin)
    return step - _cummin_from_end(step - s_begin).clamp(min=0)


def gather_contexts(lm: Tensor, ranges: Tensor) -> Tensor:
    """Rows of ``lm`` (B, S + 1, C) at ``ranges`` (B, T, s_range): (B, T, s_range, C)."""
    return lm[torch.arange(lm.shape[0], device=lm.device)[:, None, None], ranges]


def sum_contexts(
    am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
) -> tuple[Optional[Tensor], Optional[Tensor]]:
    """Backward of the pruning: gradients (B, T, s_range, C) summed to those of am (B, T, C) and lm (B, num_contexts, C)."""
    am_sum = None if am_grad is None else am_grad.sum(dim=2)
    if lm_grad is None:
        return am_sum, None
    num_batch, channels = lm_grad.shape[0], lm_grad.shape[3]
    rows = ranges + num_contexts * torch.arange(num_batch, device=ranges.device)[:, None, None]
    lm_sum = lm_grad.new_zeros(num_batch * num_contexts, channels).index_add_(
        0, rows.reshape(-1), lm_grad.reshape(-1, channels)
    )
    return am_sum, lm_sum.reshape(num_batch, num_contexts, channels)


def dense_lattice(
    px: Tensor, py: Tensor, lattice: Lattice, want_grad: bool
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Losses (B,) of lattices with symbol scores (B, T, S) and blank scores (B, T, S + 1), before delay penalty and forced blanks.

    With ``want_grad`` also the occupation counts of the symbols (B, T + 1 or T, S) and of the blanks (B, T, S + 1).
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
    for n in range(1, num_rows + 1):
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
        return loss, None, None

    finite = torch.isfinite(loss)
    x, y = (
        torch.where(finite[:, None], x, torch.zeros_like(x)),
        torch.where(finite[:, None], y, torch.zeros_like(y)),
    )
    ends = torch.zeros_like(x)
    ends[last_row, utterances, s_last] = 1.0
    count = ends[num_rows]
    for n in range(num_rows, 0, -1):
        x[n] *= count
        y[n] *= count
        count = y[n] + torch.nn.functional.pad(x[n, :, 1:], (0, 1)) + ends[n - 1]
    occ_x = x[arrival[:, :num_symbols], :, contexts[1:]].permute(2, 0, 1)
    occ_y = y[arrival, :, contexts].permute(2, 0, 1)
    return loss, torch.nn.functional.pad(occ_x, (0, 0, 0, skew)), occ_y


def _limit(px: Tensor, py: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor]:
    """Arc scores with forced blanks and delay penalty; -inf and everything outside the boundary made :data:`NEVER`."""
    num_frames, num_symbols = px.shape[1:]
    if lattice.constrained:
        px = px + py[:, :, 1:]
    s_first, t_first, s_last, t_last = (limit[:, None, None] for limit in lattice.boundary.unbind(1))
    frames = torch.arange(num_frames, device=px.device)[None, :, None]
    contexts = torch.arange(num_symbols + 1, device=px.device)
    if lattice.delay_penalty > 0.0:
        px = px + lattice.delay_penalty * ((t_last - 1) / 2 - frames).to(px.dtype)
    inside = (frames >= t_first) & (frames < t_last) & (contexts >= s_first) & (contexts <= s_last)
    never = torch.full_like(py, NEVER)
    py = torch.where(inside, py.clamp(min=NEVER), never)
    px = torch.where(
        inside[:, :, :num_symbols] & inside[:, :, 1:], px.clamp(min=NEVER), never[:, :, :num_symbols]
    )
    return px, py


def _positions(band: Tensor, s_begin: Tensor) -> Tensor:
    """The s of each row of a band (B, T, s_range, ...)."""
    return s_begin.unsqueeze(2) + torch.arange(band.shape[2], device=band.device)


def _labels(band: Tensor, s_begin: Tensor, lattice: Lattice) -> Tensor:
    """The symbol that follows each row of a band; the blank at s = S."""
    symbols = torch.nn.functional.pad(lattice.symbols, (0, 1), value=lattice.blank)
    where = _positions(band, s_begin)
    return symbols.unsqueeze(1).expand(-1, where.shape[1], -1).gather(2, where)


def _cummin_from_end(x: Tensor) -> Tensor:
    return x.flip(-1).cummin(dim=-1).values.flip(-1)

"""Scores of the arcs of RNN-T lattices: what k2's recursions add up, with autograd history.

All return (px, py): the log-probabilities of the symbols, (B, S, T + 1) in a regular lattice and
(B, S, T) in others, and of the blanks, (B, S + 1, T). In a regular lattice px is -inf at the frame
after an utterance's last one, in a constrained lattice it includes the forced blank. The losses of
:mod:`asr_core.ops.rnnt_loss`, which describes the arguments, need less memory and time than these.
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.rnnt.arguments import check_contexts, check_type, check_within, computable, whole_boundary

NEVER = float("-inf")


def get_rnnt_logprobs(
    lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int,
    rnnt_type: str = "regular", boundary: Optional[Tensor] = None,
) -> Tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the scores of a lattice with logits ``lm[:, None] + am[:, :, None]``.

    Args:
      lm: (B, S + 1, C), the contexts' part of the logits.
      am: (B, T, C), the frames' part.
    """
    return get_rnnt_logprobs_smoothed(
        lm, am, symbols, termination_symbol, 0.0, 0.0, boundary=boundary, rnnt_type=rnnt_type
    )


def get_rnnt_logprobs_smoothed(
    lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int,
    lm_only_scale: float = 0.1, am_only_scale: float = 0.1,
    boundary: Optional[Tensor] = None, rnnt_type: str = "regular",
) -> Tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the scores that :func:`asr_core.ops.rnnt_loss.rnnt_loss_smoothed` interpolates.

    Args:
      lm: (B, S + 1, C), the contexts' part of the logits.
      am: (B, T, C), the frames' part.
      lm_only_scale, am_only_scale: weights of the scores from one part alone.
    """
    if lm.ndim != 3 or am.ndim != 3 or lm.shape[0] != am.shape[0] or lm.shape[2] != am.shape[2]:
        raise ValueError(
            f"lm must be (B, S + 1, C) and am (B, T, C), not {tuple(lm.shape)} and {tuple(am.shape)}"
        )
    check_contexts(lm, symbols)
    lm, am = computable(lm), computable(am)
    symbols = _checked_symbols(symbols, termination_symbol, am.shape[2])
    both = _log_dot(lm, am)  # (B, S + 1, T)
    px = _at_symbols(lm, symbols).unsqueeze(2) + _at_symbols_of_frames(am, symbols) - both[:, :-1]
    py = lm[:, :, termination_symbol].unsqueeze(2) + am[:, :, termination_symbol].unsqueeze(1) - both
    px, py = ((1.0 - lm_only_scale - am_only_scale) * x for x in (px, py))
    if lm_only_scale != 0.0:
        alone = lm.log_softmax(dim=2)
        px = px + lm_only_scale * _at_symbols(alone, symbols).unsqueeze(2)
        py = py + lm_only_scale * alone[:, :, termination_symbol].unsqueeze(2)
    if am_only_scale != 0.0:
        unigram = lm.softmax(dim=2).mean(dim=(0, 1)) + torch.finfo(lm.dtype).tiny  # (C,)
        alone = (am + unigram.log()).log_softmax(dim=2)  # (B, T, C)
        px = px + am_only_scale * _at_symbols_of_frames(alone, symbols)
        py = py + am_only_scale * alone[:, :, termination_symbol].unsqueeze(1)
    return _of_type(px, py, boundary, rnnt_type)


def get_rnnt_logprobs_joint(
    logits: Tensor, symbols: Tensor, termination_symbol: int,
    rnnt_type: str = "regular", boundary: Optional[Tensor] = None, use_hat_loss: bool = False,
) -> Tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the scores of the full lattice.

    Args:
      logits: (B, T, S + 1, C), output of the joiner.
      use_hat_loss: see :func:`asr_core.ops.rnnt_loss.rnnt_loss`.
    """
    if logits.ndim != 4 or logits.shape[2] != symbols.shape[-1] + 1:
        raise ValueError(
            f"logits must be (B, T, S + 1, C) with S = {symbols.shape[-1]}, not {tuple(logits.shape)}"
        )
    num_batch, num_frames, contexts, _ = logits.shape
    ranges = torch.arange(contexts, device=logits.device).expand(num_batch, num_frames, contexts)
    return get_rnnt_logprobs_pruned(
        logits, symbols, ranges, termination_symbol, boundary, rnnt_type, use_hat_loss
    )


def get_rnnt_logprobs_pruned(
    logits: Tensor, symbols: Tensor, ranges: Tensor, termination_symbol: int,
    boundary: Optional[Tensor] = None, rnnt_type: str = "regular", use_hat_loss: bool = False,
) -> Tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the scores of a lattice of which each frame has only a window of contexts; those of
    other contexts are -inf.

    Args:
      logits: (B, T, s_range, C), output of the joiner.
      ranges: (B, T, s_range), the contexts of each frame.
      use_hat_loss: see :func:`asr_core.ops.rnnt_loss.rnnt_loss`.
    """
    if logits.ndim != 4 or ranges.shape != logits.shape[:3]:
        raise ValueError(
            "logits must be (B, T, s_range, C) and ranges (B, T, s_range), "
            f"not {tuple(logits.shape)}, {tuple(ranges.shape)}"
        )
    logits = computable(logits)
    symbols = _checked_symbols(symbols, termination_symbol, logits.shape[3])
    num_symbols = symbols.shape[1]
    check_within(ranges, 0, num_symbols, "ranges")
    ranges = ranges.to(torch.int64)
    labels = F.pad(symbols, (0, 1), value=termination_symbol).unsqueeze(1)  # (B, 1, S + 1)
    labels = labels.expand(-1, ranges.shape[1], -1).gather(2, ranges)  # (B, T, s_range)
    log_probs = hat_log_probs(logits, termination_symbol) if use_hat_loss else logits.log_softmax(dim=3)
    in_window = (log_probs.gather(3, labels.unsqueeze(3)).squeeze(3), log_probs[..., termination_symbol])
    never = logits.new_full((*logits.shape[:2], num_symbols + 1), NEVER)
    px, py = (never.scatter(2, ranges, x).transpose(1, 2) for x in in_window)  # (B, S + 1, T)
    return _of_type(px[:, :num_symbols], py, boundary, rnnt_type)


def get_hat_logprobs_pruned(
    logits: Tensor, symbols: Tensor, ranges: Tensor, termination_symbol: int,
    boundary: Optional[Tensor] = None, rnnt_type: str = "regular",
) -> Tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the scores of :func:`get_rnnt_logprobs_pruned` with ``use_hat_loss``."""
    return get_rnnt_logprobs_pruned(
        logits, symbols, ranges, termination_symbol, boundary, rnnt_type, use_hat_loss=True
    )


def hat_log_probs(logits: Tensor, blank: int) -> Tensor:
    """Return the log-probabilities of a hybrid autoregressive transducer (Variani et al. 2020).

    The blank's is a sigmoid of its logit, the others share the rest by a softmax.

    Args:
      logits: (..., C).
      blank: index of the blank.
    """
    of_blank = logits[..., blank : blank + 1]
    is_blank = torch.arange(logits.shape[-1], device=logits.device) == blank
    others = logits.masked_fill(is_blank, NEVER).log_softmax(dim=-1) + F.logsigmoid(-of_blank)
    return torch.where(is_blank, F.logsigmoid(of_blank), others)


def _checked_symbols(symbols: Tensor, blank: int, num_columns: int) -> Tensor:
    """Refuse labels outside the vocabulary; return the symbols as int64."""
    if not 0 <= blank < num_columns:
        raise ValueError(f"termination_symbol must be in [0, {num_columns}), not {blank}")
    check_within(symbols, 0, num_columns - 1, "symbols")
    return symbols.to(torch.int64)


def _log_dot(lm: Tensor, am: Tensor) -> Tensor:
    """Return logsumexp of lm (B, S + 1, C) + am (B, T, C) over C, (B, S + 1, T), by a product of
    matrices.
    """
    lm_max, am_max = lm.amax(dim=2, keepdim=True), am.amax(dim=2, keepdim=True)
    dot = torch.bmm((lm - lm_max).exp(), (am - am_max).exp().transpose(1, 2))
    return (dot + torch.finfo(dot.dtype).tiny).log() + lm_max + am_max.transpose(1, 2)


def _at_symbols(x: Tensor, symbols: Tensor) -> Tensor:
    """Return x (B, S + 1, C) at the symbol that follows each context, (B, S)."""
    return x[:, :-1].gather(2, symbols.unsqueeze(2)).squeeze(2)


def _at_symbols_of_frames(x: Tensor, symbols: Tensor) -> Tensor:
    """Return x (B, T, C) at all symbols, (B, S, T)."""
    return x.gather(2, symbols.unsqueeze(1).expand(-1, x.shape[1], -1)).transpose(1, 2)


def _of_type(px: Tensor, py: Tensor, boundary: Optional[Tensor], rnnt_type: str) -> Tuple[Tensor, Tensor]:
    """Finish the scores (B, S, T) and (B, S + 1, T) as the kind of lattice asks for."""
    check_type(rnnt_type)
    if rnnt_type == "constrained":
        px = px + py[:, 1:]
    if rnnt_type == "regular":
        px = F.pad(px, (0, 1), value=NEVER)
        if boundary is not None:
            sizes = (px.shape[0], px.shape[1], py.shape[2])
            end = whole_boundary(boundary, sizes, px.device)[:, 3, None, None]
            px = px.masked_fill(torch.arange(px.shape[2], device=px.device) == end, NEVER)
    return px.contiguous(), py.contiguous()

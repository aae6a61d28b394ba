r"""RNN-T losses: full, factorised ("simple"), smoothed and pruned, with the names, arguments and
results of k2.

**The lattice.** An utterance has T frames and S symbols. Cell (s, t) means: s symbols emitted, at
frame t. At each cell the model gives a distribution over the vocabulary, of which one entry, the
termination symbol (blank), moves on to the next frame and entry ``symbols[s]`` emits that symbol.
With px[s, t] and py[s, t] the log-probabilities of these two (Graves 2012, "Sequence transduction
with recurrent neural networks"), the score p of all paths from (0, 0) to a cell is ::

    regular:       p[s, t] = log(exp(p[s - 1, t]     + px[s - 1, t])     + exp(p[s, t - 1] + py[s, t
      - 1]))
    modified:      p[s, t] = log(exp(p[s - 1, t - 1] + px[s - 1, t - 1]) + exp(p[s, t - 1] + py[s, t
      - 1]))
    constrained:   as modified, with px[s, t] + py[s + 1, t] instead of px[s, t]

and the loss is ``-p[S, T]``: a regular path may emit any number of symbols on a frame, a modified
or constrained one at most one; a constrained one is forced to take the blank of the new context on
the same frame. A ``delay_penalty`` d > 0 adds ``d ((T - 1) / 2 - t)`` to each px[s, t], which
favours paths that emit early.

**Pruning** (Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training"). A loss
whose logits are a sum lm[s] + am[t] needs no S x T x C array; the probabilities of its arcs
(occupation counts: minus the derivatives of the loss by px and py) say which ``s_range`` contexts
matter on each frame, and only for these is the joiner evaluated ::

    simple_loss, (px_grad, py_grad) = rnnt_loss_smoothed(lm, am, symbols, 0, boundary=boundary,
    return_grad=True) ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range=5)
    am_pruned, lm_pruned = do_rnnt_pruning(encoder_out, decoder_out, ranges) pruned_loss =
    rnnt_loss_pruned(joiner(am_pruned, lm_pruned), symbols, ranges, 0, boundary=boundary)

**Common arguments.** B utterances, T frames, S symbols, C entries of the vocabulary.

- ``symbols``: (B, S) integers in [0, C).
- ``termination_symbol``: the blank, in [0, C).
- ``boundary``: (B, 4) integers, rows [first symbol, first frame, number of symbols, number of
  frames] with 0 <= first <= number <= S or T; default [0, 0, S, T].
- ``rnnt_type``: "regular", "modified" or "constrained".
- ``fast_emit_lambda``: weight of FastEmit (Yu et al. 2021, "FastEmit: low-latency streaming ASR
  with sequence-level emission regularization"): gradients with respect to the log-probabilities of
  symbols are multiplied by 1 + it, those of blanks are not. The value of the loss stays the same.
- ``reduction``: "none" (losses (B,)), "mean" or "sum" over the batch.
- ``backend``: "auto" takes the compiled CPU kernels ("numba") for float32 and float64 on the CPU
  where numba is installed, else "torch", which runs on any device. They give the same results. Half
  precision is computed in float32. "torchaudio", where installed, computes :func:`rnnt_loss` of
  regular lattices alone.

**Hard cases.** Each concerns its own utterance alone; the other utterances' losses and gradients
are not touched.

- S = 0 (also as a boundary): the loss is minus the sum of the blanks' scores.
- No path: more symbols than frames in a modified or constrained lattice, no frame at all but
  symbols, all paths cut off by logits of -inf or by pruning: the loss is +inf, its gradient and its
  occupation counts are 0.
- NaN, +inf or nothing but -inf among the logits of a cell that paths visit: the loss is NaN, its
  gradient and counts are 0. (Where there is no path either, the loss is NaN or +inf.) A single
  logit of -inf is a probability of 0. What lies outside the boundary has no influence.
- With ``am_only_scale`` every context of the batch, those outside the boundary too, takes part in
  the mean distribution that all utterances share, and has a gradient from it; contexts with NaN or
  +inf are left out.
- B = 0: losses of shape (0,), sum 0, mean NaN.

Errors: ValueError for arguments that do not fit together. Second derivatives are not supported.
"""

from typing import Callable, Optional, Tuple, Union

import torch
from torch import Tensor

from asr_core.ops.rnnt import torch_backend, torchaudio_backend
from asr_core.ops.rnnt.arguments import (
    BACKENDS,
    backend_for,
    check_contexts,
    check_within,
    computable,
    make_lattice,
    reduce_losses,
)
from asr_core.ops.rnnt.functions import Pruned, Pruning, Scales, Smoothed
from asr_core.ops.rnnt.logprobs import (
    get_hat_logprobs_pruned,
    get_rnnt_logprobs,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
    get_rnnt_logprobs_smoothed,
    hat_log_probs,
)
from asr_core.ops.rnnt.projected import Output, Projected
from asr_core.ops.rnnt.recursion import joint_mutual_information_recursion, mutual_information_recursion

__all__ = [
    "BACKENDS",
    "do_rnnt_pruning",
    "get_hat_logprobs_pruned",
    "get_rnnt_logprobs",
    "get_rnnt_logprobs_joint",
    "get_rnnt_logprobs_pruned",
    "get_rnnt_logprobs_smoothed",
    "get_rnnt_prune_ranges",
    "get_rnnt_prune_ranges_deprecated",
    "joint_mutual_information_recursion",
    "mutual_information_recursion",
    "rnnt_loss",
    "rnnt_loss_projected",
    "rnnt_loss_pruned",
    "rnnt_loss_simple",
    "rnnt_loss_smoothed",
    "tanh_of_sum",
]

LossAndCounts = Union[Tensor, Tuple[Tensor, Tuple[Tensor, Tensor]]]


def tanh_of_sum(am: Tensor, lm: Tensor) -> Tensor:
    """Return ``tanh(am + lm)`` (M, J), the usual joiner before its output layer."""
    return torch.tanh(am + lm)


def rnnt_loss(
    logits: Tensor, symbols: Tensor, termination_symbol: int, boundary: Optional[Tensor] = None,
    rnnt_type: str = "regular", delay_penalty: float = 0.0, reduction: Optional[str] = "mean",
    use_hat_loss: bool = False, *, fast_emit_lambda: float = 0.0, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """Compute the loss of the full lattice.

    Args:
      logits: (B, T, S + 1, C), output of the joiner before softmax; the module describes the
        others.
      use_hat_loss: whether the blank's logit gives its probability by a sigmoid and the others
        share the rest by a softmax (HAT, Variani et al. 2020).

    Returns:
      (B,) or a scalar, by ``reduction``.
    """
    if logits.ndim != 4 or logits.shape[2] != symbols.shape[-1] + 1:
        raise ValueError(
            f"logits must be (B, T, S + 1, C) with S = {symbols.shape[-1]}, not {tuple(logits.shape)}"
        )
    logits = computable(logits)
    sizes = (logits.shape[0], logits.shape[1], logits.shape[3])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    if use_hat_loss:
        logits = hat_log_probs(logits, termination_symbol)
    if backend == "torchaudio":
        return reduce_losses(torchaudio_backend.full_loss(logits, lattice), reduction)
    first = lattice.symbols.new_zeros(logits.shape[:2])
    return reduce_losses(Pruned.apply(logits, first, lattice, backend_for(backend, logits)), reduction)


def rnnt_loss_projected(
    am: Tensor, lm: Tensor, weight: Tensor, bias: Tensor,
    symbols: Tensor, termination_symbol: int, boundary: Optional[Tensor] = None,
    rnnt_type: str = "regular", delay_penalty: float = 0.0, reduction: Optional[str] = "mean", *,
    combine: Callable[[Tensor, Tensor], Tensor] = tanh_of_sum, factorised_blank: bool = False,
    fast_emit_lambda: float = 0.0, block_cells: Optional[int] = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """Compute the loss of the full lattice, :func:`rnnt_loss`, from what a joiner makes its logits
    of, in little memory.

    The logits are ``combine(am[:, :, None], lm[:, None]) @ weight.T + bias``. They are never there
    all at once: blocks of cells are computed one after the other, and those that paths visit once
    more for the gradients. A cell takes 100 bytes at most, against some 12 C with all logits.

    Args:
      am: (B, T, J1), the projected encoder output.
      lm: (B, S + 1, J1), the projected output of the prediction network.
      weight: (C, J2), of the linear map behind ``combine``.
      bias: (C,), of the linear map.
      combine: (M, J1), (M, J1) -> (M, J2), row by row and differentiable; it must not use other
        parameters.
      factorised_blank: whether the blank's logit gives its probability by a sigmoid and the others
        share the rest by a softmax (HAT, Variani et al. 2020).
      block_cells: cells (frame and context of an utterance) per block; None takes what a block of
        some megabytes holds.

    Returns:
      (B,) or a scalar, by ``reduction``.
    """
    if am.ndim != 3 or lm.ndim != 3 or am.shape[0] != lm.shape[0] or am.shape[2] != lm.shape[2]:
        raise ValueError(
            f"am must be (B, T, J) and lm (B, S + 1, J), not {tuple(am.shape)} and {tuple(lm.shape)}"
        )
    check_contexts(lm, symbols)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"weight must be (C, J) and bias (C,), not {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    am, lm, weight, bias = (computable(x).contiguous() for x in (am, lm, weight, bias))
    sizes = (am.shape[0], am.shape[1], weight.shape[0])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    output = Output(combine, factorised_blank, block_cells)
    return reduce_losses(
        Projected.apply(am, lm, weight, bias, lattice, output, backend_for(backend, am)), reduction
    )


def rnnt_loss_simple(
    lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int, boundary: Optional[Tensor] = None,
    rnnt_type: str = "regular", delay_penalty: float = 0.0, reduction: Optional[str] = "mean",
    return_grad: bool = False, *, fast_emit_lambda: float = 0.0, backend: str = "auto",
) -> LossAndCounts:  # fmt: skip
    """Compute the loss of the lattice with logits ``lm[:, None] + am[:, :, None]`` (B, T, S + 1,
    C).

    This is :func:`rnnt_loss_smoothed` with both scales 0.
    """
    return rnnt_loss_smoothed(
        lm,
        am,
        symbols,
        termination_symbol,
        lm_only_scale=0.0,
        am_only_scale=0.0,
        boundary=boundary,
        rnnt_type=rnnt_type,
        delay_penalty=delay_penalty,
        reduction=reduction,
        return_grad=return_grad,
        fast_emit_lambda=fast_emit_lambda,
        backend=backend,
    )


def rnnt_loss_smoothed(
    lm: Tensor, am: Tensor, symbols: Tensor, termination_symbol: int,
    lm_only_scale: float = 0.1, am_only_scale: float = 0.1, boundary: Optional[Tensor] = None,
    rnnt_type: str = "regular", delay_penalty: float = 0.0, reduction: Optional[str] = "mean",
    return_grad: bool = False, *, fast_emit_lambda: float = 0.0, backend: str = "auto",
) -> LossAndCounts:  # fmt: skip
    """Compute the loss of a lattice whose scores interpolate lm + am, lm alone and am alone (Kuang
    et al. 2022, section 2.3).

    The score of a label is ``(1 - lm_only_scale - am_only_scale)`` times its log-probability under
    logits lm + am, plus ``lm_only_scale`` times that under lm, plus ``am_only_scale`` times that
    under am + log(mean over the batch of softmax(lm)).

    The normaliser of lm + am is a product of exponentials scaled by each row's maximum, so it
    cannot be less than the sum of the two maxima minus 87 (float32) or 708 (float64).

    Args:
      lm: (B, S + 1, C), the contexts' part of the logits; the module describes the arguments that
        are not here.
      am: (B, T, C), the frames' part.
      return_grad: whether to return the occupation counts too.

    Returns:
      (B,) or a scalar, by ``reduction``; with ``return_grad`` (loss, (px_grad, py_grad)): the
      occupation counts of the symbols, (B, S, T + 1) (regular) or (B, S, T), and of the blanks, (B,
      S + 1, T), without autograd history.
    """
    if lm.ndim != 3 or am.ndim != 3 or lm.shape[0] != am.shape[0] or lm.shape[2] != am.shape[2]:
        raise ValueError(
            f"lm must be (B, S + 1, C) and am (B, T, C), not {tuple(lm.shape)} and {tuple(am.shape)}"
        )
    check_contexts(lm, symbols)
    lm, am = computable(lm), computable(am)
    dtype = torch.promote_types(lm.dtype, am.dtype)
    lm, am = lm.to(dtype), am.to(dtype)
    sizes = (am.shape[0], am.shape[1], am.shape[2])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    scales = Scales(lm=lm_only_scale, am=am_only_scale)
    loss, px_grad, py_grad = Smoothed.apply(lm, am, lattice, scales, return_grad, backend_for(backend, am))
    loss = reduce_losses(loss, reduction)
    return (loss, (px_grad, py_grad)) if return_grad else loss


def rnnt_loss_pruned(
    logits: Tensor, symbols: Tensor, ranges: Tensor, termination_symbol: int,
    boundary: Optional[Tensor] = None, rnnt_type: str = "regular", delay_penalty: float = 0.0,
    reduction: Optional[str] = "mean", use_hat_loss: bool = False, *,
    fast_emit_lambda: float = 0.0, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """Compute the loss over the paths that stay inside a window of contexts on each frame.

    Args:
      logits: (B, T, s_range, C), output of the joiner before softmax; the module describes the
        arguments that are not here.
      ranges: (B, T, s_range), the contexts of each frame: consecutive, from
        :func:`get_rnnt_prune_ranges`.
      use_hat_loss: see :func:`rnnt_loss`.

    Returns:
      (B,) or a scalar, by ``reduction``.
    """
    if logits.ndim != 4 or ranges.shape != logits.shape[:3]:
        raise ValueError(
            "logits must be (B, T, s_range, C) and ranges (B, T, s_range), "
            f"not {tuple(logits.shape)}, {tuple(ranges.shape)}"
        )
    logits = computable(logits)
    sizes = (logits.shape[0], logits.shape[1], logits.shape[3])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    if use_hat_loss:
        logits = hat_log_probs(logits, termination_symbol)
    check_within(ranges, 0, symbols.shape[-1], "ranges")
    s_begin = ranges[:, :, 0].to(torch.int64).contiguous()
    return reduce_losses(Pruned.apply(logits, s_begin, lattice, backend_for(backend, logits)), reduction)


def get_rnnt_prune_ranges(
    px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int, *, backend: str = "auto"
) -> Tensor:
    """Choose the window of contexts of each frame that holds most of the lattice's probability.

    A window is chosen by the probability of the blanks in it minus that of the symbol that leads
    into it; then windows are moved so that they never go back and reach (S_b, T_b) by steps that a
    path can follow, that is at most ``s_range - 1`` contexts a frame, 1 in a modified lattice.

    Args:
      px_grad: (B, S, T + 1) or (B, S, T), counts of the symbols from :func:`rnnt_loss_smoothed`.
      py_grad: (B, S + 1, T), counts of the blanks.
      boundary: (B, 4), see the module; on the CPU it saves a wait for the device of the gradients.
      s_range: contexts per window; more than S means S + 1. At least 2 for a regular lattice, 1 for
        others. In a regular lattice windows are made as wide as the utterance with the most symbols
        per frame needs, so that each has a path.

    Returns:
      (B, T, s_range) int64 contexts.
    """
    num_batch, num_symbols, x_frames = px_grad.shape
    num_frames = py_grad.shape[-1]
    if py_grad.shape != (num_batch, num_symbols + 1, num_frames) or x_frames - num_frames not in (0, 1):
        raise ValueError(
            f"px_grad and py_grad do not fit together: {tuple(px_grad.shape)}, {tuple(py_grad.shape)}"
        )
    if boundary.shape != (num_batch, 4):
        raise ValueError(f"boundary must be ({num_batch}, 4), not {tuple(boundary.shape)}")
    least = 1 if x_frames == num_frames else 2
    if s_range < least:
        raise ValueError(f"s_range must be at least {least} for paths to exist, not {s_range}")
    if least == 2:  # a shape is known to the host, which waits for the boundary if a device has it
        s_range = max(s_range, _least_range(boundary))
    boundary = boundary.to(py_grad.device, torch.int64, non_blocking=boundary.device.type == "cpu")
    s_range = min(s_range, num_symbols + 1)
    px_grad, py_grad = computable(px_grad.detach()), computable(py_grad.detach())
    if num_batch == 0 or num_frames == 0:
        return boundary.new_zeros(num_batch, num_frames, s_range)
    s_begin = backend_for(backend, py_grad).prune_ranges(px_grad, py_grad, boundary, s_range)
    return s_begin.unsqueeze(2) + torch.arange(s_range, device=s_begin.device)


def get_rnnt_prune_ranges_deprecated(
    px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int, *, backend: str = "auto"
) -> Tensor:
    """Choose windows as :func:`get_rnnt_prune_ranges` does, but by the probability of all arcs that
    leave their contexts, as k2 did at first.
    """
    visits = py_grad + torch.nn.functional.pad(px_grad[:, :, : py_grad.shape[-1]], (0, 0, 0, 1))
    return get_rnnt_prune_ranges(torch.zeros_like(px_grad), visits, boundary, s_range, backend=backend)


def _least_range(boundary: Tensor) -> int:
    """Return how wide windows must be that move on by less than their width at each frame, for all
    S_b symbols to be reached in T_b frames.
    """
    needed = torch.where(
        boundary[:, 3] > 0,
        (boundary[:, 2] - 1).clamp(min=0).div(boundary[:, 3].clamp(min=1), rounding_mode="floor") + 2,
        torch.zeros_like(boundary[:, 2]),
    )
    return int(needed.max()) if len(needed) else 0


def do_rnnt_pruning(
    am: Tensor, lm: Tensor, ranges: Tensor, *, backend: str = "auto"
) -> Tuple[Tensor, Tensor]:
    """Arrange encoder and predictor outputs in the shape that the joiner needs for
    :func:`rnnt_loss_pruned`.

    Args:
      am: (B, T, C1), encoder output.
      lm: (B, S + 1, C2), predictor output.
      ranges: (B, T, s_range) from :func:`get_rnnt_prune_ranges`.

    Returns:
      (B, T, s_range, C1), a view of am that repeats each frame, and (B, T, s_range, C2), the rows
      of lm named by ranges.
    """
    three_axes = am.ndim == lm.ndim == ranges.ndim == 3
    if not three_axes or am.shape[:2] != ranges.shape[:2] or lm.shape[0] != am.shape[0]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (am, lm, ranges))
        raise ValueError(
            f"am (B, T, C1), lm (B, S + 1, C2) and ranges (B, T, s_range) do not fit together: {shapes}"
        )
    check_within(ranges, 0, lm.shape[1] - 1, "ranges")
    ranges = ranges.to(torch.int64).contiguous()
    module = backend_for(backend, lm) if am.dtype == lm.dtype else torch_backend
    return Pruning.apply(am, lm, ranges, module)

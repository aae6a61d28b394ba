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
  where numba is installed, Triton's kernels ("triton") for float32 and half precision on a GPU,
  else "torch", which runs on any device. They give the same results. Half precision is computed
  in float32. "torchaudio", where installed, computes :func:`rnnt_loss` of regular lattices alone.

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

from asr_core.ops.operators import is_traced
from asr_core.ops.rnnt import torchaudio_backend, traced
from asr_core.ops.rnnt.arguments import (
    BACKENDS,
    backend_for,
    check_contexts,
    check_projections,
    check_within,
    computable,
    make_lattice,
    reduce_losses,
)
from asr_core.ops.rnnt.functions import Pruned, Scales, Smoothed
from asr_core.ops.rnnt.lattice import Lattice
from asr_core.ops.rnnt.logprobs import (
    get_hat_logprobs_pruned,
    get_rnnt_logprobs,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
    get_rnnt_logprobs_smoothed,
    hat_log_probs,
)
from asr_core.ops.rnnt.projected import Output, Projected, tanh_of_sum
from asr_core.ops.rnnt.pruning import do_rnnt_pruning, get_rnnt_prune_ranges, get_rnnt_prune_ranges_deprecated
from asr_core.ops.rnnt.recursion import joint_mutual_information_recursion, mutual_information_recursion
from asr_core.ops.rnnt.windowed import Windowed

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
    "rnnt_loss_pruned_projected",
    "rnnt_loss_simple",
    "rnnt_loss_smoothed",
    "tanh_of_sum",
]

LossAndCounts = Union[Tensor, Tuple[Tensor, Tuple[Tensor, Tensor]]]


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
    sizes = (logits.shape[0], logits.shape[1], logits.shape[3])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    if use_hat_loss:
        logits = hat_log_probs(computable(logits), termination_symbol)
    if backend == "torchaudio":
        return reduce_losses(torchaudio_backend.full_loss(computable(logits), lattice), reduction)
    first = lattice.symbols.new_zeros(logits.shape[:2])
    return reduce_losses(_windowed_loss(logits, first, lattice, backend), reduction)


def _windowed_loss(logits: Tensor, s_begin: Tensor, lattice: Lattice, backend: str) -> Tensor:
    """Return the losses (B,) of logits (B, T, R, C); not all back ends read half precision."""
    module = backend_for(backend, computable(logits[:0]))
    logits = logits if module.half_logits else computable(logits)
    if is_traced():
        return traced.pruned(logits, s_begin, lattice, backend)
    return Pruned.apply(logits, s_begin, lattice, module)


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
    Under autocast on a GPU matrices are multiplied in its type, and all cells computed once more.

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
    check_projections(am, lm, weight, bias, symbols)
    am, lm, weight, bias = (computable(x).contiguous() for x in (am, lm, weight, bias))
    sizes = (am.shape[0], am.shape[1], weight.shape[0])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    output, module = Output(combine, factorised_blank, block_cells), backend_for(backend, am)
    dtype = _product_type(weight)
    if module.blocks is not None and dtype != weight.dtype:
        # products are so fast that computing cells that no path visits costs less than asking which
        # those are
        ranges = torch.arange(lm.shape[1], device=am.device).expand(*am.shape[:2], -1).contiguous()
        loss = Windowed.apply(am, lm, weight, bias, ranges, lattice, output, dtype, module)
        return reduce_losses(loss, reduction)
    return reduce_losses(Projected.apply(am, lm, weight, bias, lattice, output, module), reduction)


def _product_type(weight: Tensor) -> torch.dtype:
    """Return the type in which a linear map is computed: that of autocast, or its own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


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
    if is_traced():
        loss, px_grad, py_grad = traced.smoothed(lm, am, lattice, scales, backend)
    else:
        module = backend_for(backend, am)
        loss, px_grad, py_grad = Smoothed.apply(lm, am, lattice, scales, return_grad, module)
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
    sizes = (logits.shape[0], logits.shape[1], logits.shape[3])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    if use_hat_loss:
        logits = hat_log_probs(computable(logits), termination_symbol)
    check_within(ranges, 0, symbols.shape[-1], "ranges")
    s_begin = ranges[:, :, 0].to(torch.int64).contiguous()
    return reduce_losses(_windowed_loss(logits, s_begin, lattice, backend), reduction)


def rnnt_loss_pruned_projected(
    am: Tensor, lm: Tensor, weight: Tensor, bias: Tensor,
    symbols: Tensor, ranges: Tensor, termination_symbol: int, boundary: Optional[Tensor] = None,
    rnnt_type: str = "regular", delay_penalty: float = 0.0, reduction: Optional[str] = "mean", *,
    combine: Callable[[Tensor, Tensor], Tensor] = tanh_of_sum, factorised_blank: bool = False,
    fast_emit_lambda: float = 0.0, block_cells: Optional[int] = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """Compute the loss over the paths inside windows, :func:`rnnt_loss_pruned`, from what a joiner
    makes its logits of, without an array of all logits.

    Under autocast matrices are multiplied in its type; all else is float32 or better.

    Args:
      am, lm, weight, bias, combine, factorised_blank: see :func:`rnnt_loss_projected`.
      ranges: (B, T, s_range), the contexts of each frame: consecutive, from
        :func:`get_rnnt_prune_ranges`.
      block_cells: cells (frame and context of its window) per block, at least those of one frame;
        None chooses.

    Returns:
      (B,) or a scalar, by ``reduction``.
    """
    check_projections(am, lm, weight, bias, symbols)
    if is_traced():  # an operator cannot take a function
        hidden = combine(*do_rnnt_pruning(am, lm, ranges, backend=backend))
        logits = torch.nn.functional.linear(hidden, weight, bias)
        return rnnt_loss_pruned(
            logits, symbols, ranges, termination_symbol, boundary, rnnt_type, delay_penalty, reduction,
            factorised_blank, fast_emit_lambda=fast_emit_lambda, backend=backend,
        )  # fmt: skip
    if ranges.ndim != 3 or ranges.shape[:2] != am.shape[:2]:
        raise ValueError(f"ranges must be (B, T, s_range), not {tuple(ranges.shape)}")
    sizes = (am.shape[0], am.shape[1], weight.shape[0])
    lattice = make_lattice(
        sizes, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, fast_emit_lambda
    )
    check_within(ranges, 0, symbols.shape[-1], "ranges")
    output, dtype = Output(combine, factorised_blank, block_cells), _product_type(weight)
    am, lm, weight, bias = (x.contiguous() for x in (am, lm, weight, bias))
    module = backend_for(backend, computable(am[:0]))
    arguments = (ranges.to(torch.int64).contiguous(), lattice, output, dtype, module)
    return reduce_losses(Windowed.apply(am, lm, weight, bias, *arguments), reduction)

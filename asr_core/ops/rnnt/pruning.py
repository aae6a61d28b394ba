"""Windows of contexts of the pruned RNN-T loss; :mod:`asr_core.ops.rnnt_loss` describes it."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.host import sent
from asr_core.ops.operators import is_traced
from asr_core.ops.rnnt import torch_backend, traced
from asr_core.ops.rnnt.arguments import backend_for, check_within, computable
from asr_core.ops.rnnt.functions import Pruning


def get_rnnt_prune_ranges(
    px_grad: Tensor,
    py_grad: Tensor,
    boundary: Tensor,
    s_range: int,
    *,
    cpu_boundary: Optional[Tensor] = None,
    backend: str = "auto",
) -> Tensor:
    """Choose the window of contexts of each frame that holds most of the lattice's probability.

    A window is chosen by the probability of the blanks in it minus that of the symbol that leads
    into it; then windows are moved so that they never go back and reach (S_b, T_b) by steps that a
    path can follow, that is at most ``s_range - 1`` contexts a frame, 1 in a modified lattice.

    Args:
      px_grad: (B, S, T + 1) or (B, S, T), counts of the symbols from the simple or smoothed loss.
      py_grad: (B, S + 1, T), counts of the blanks.
      boundary: (B, 4), see :mod:`asr_core.ops.rnnt_loss`; on the CPU it saves a wait for the device
        of the gradients, and so does
      cpu_boundary: (B, 4), a boundary on the CPU with at most as many frames.
      s_range: contexts per window; more than S means S + 1. At least 2 for a regular lattice, 1 for
        others. In a regular lattice windows are made as wide as the utterance with the most symbols
        per frame needs, so that each has a path; not when traced, where their width is fixed.

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
    # a shape is known to the host, which waits for the boundary if a device has it
    if least == 2 and not is_traced():
        s_range = max(s_range, _least_range(boundary if cpu_boundary is None else cpu_boundary))
    boundary = sent(boundary.to(torch.int64), py_grad.device)
    s_range = min(s_range, num_symbols + 1)
    px_grad, py_grad = computable(px_grad.detach()), computable(py_grad.detach())
    if num_batch == 0 or num_frames == 0:
        return boundary.new_zeros(num_batch, num_frames, s_range)
    if is_traced():
        s_begin = traced.prune_ranges(px_grad, py_grad, boundary, s_range, backend)
    else:
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
    """Arrange encoder and predictor outputs in the shape that the joiner needs for the
    pruned loss.

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
    if is_traced():
        name = backend if am.dtype == lm.dtype else "torch"
        own = am.unsqueeze(2).expand(-1, -1, ranges.shape[2], -1)
        return own, traced.gather_contexts(lm, ranges, name)
    module = backend_for(backend, lm) if am.dtype == lm.dtype else torch_backend
    return Pruning.apply(am, lm, ranges, module)

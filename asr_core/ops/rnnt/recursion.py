"""Sums over all paths of a lattice, from the scores of its arcs: k2's recursions.

With px and py the scores of the arcs, and the names of :mod:`asr_core.ops.rnnt_loss`, the score of
a cell is the log of the sum over the paths to it, and the result that of the last cell,
(number of symbols, number of frames) of the boundary.
"""

from typing import Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.context import Context
from asr_core.ops.rnnt.arguments import backend_for, computable, whole_boundary
from asr_core.ops.rnnt.backend import BandScores, RnntBackend
from asr_core.ops.rnnt.functions import usable_gradient
from asr_core.ops.rnnt.lattice import NEVER, Band, Lattice

ScoresAndCounts = Tuple[Tensor, Tuple[Tensor, Tensor]]


class _Recursion(torch.autograd.Function):
    """Scores (B,) of lattices, and the occupation counts of their arcs, which are the gradients."""

    @staticmethod
    def forward(
        ctx: Context, px: Tensor, py: Tensor, boundary: Tensor, want_grad: bool, backend: RnntBackend
    ) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
        want_grad = want_grad or any(ctx.needs_input_grad)
        scores, px_grad, py_grad = _sum_paths(px, py, boundary, want_grad, backend)
        ctx.save_for_backward(scores, px_grad, py_grad)
        if px_grad is not None and py_grad is not None:
            ctx.mark_non_differentiable(px_grad, py_grad)
        return scores, px_grad, py_grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor, *_: Tensor) -> Tuple[Optional[Tensor], ...]:
        scores, px_grad, py_grad = ctx.saved_tensors
        grad = usable_gradient(grad, scores)[:, None, None]
        return grad * px_grad, grad * py_grad, None, None, None


def _sum_paths(
    px: Tensor, py: Tensor, boundary: Tensor, want_grad: bool, backend: RnntBackend
) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Compute the scores (B,) and, if wanted, the counts in the shapes of px and py.

    Back ends know lattices whose last arc is a blank. A regular lattice gets a frame more, whose
    only blank is that of the last context, with score 0; so symbols may follow its own last blank.
    """
    num_batch, num_symbols, x_frames = px.shape
    regular = x_frames != py.shape[2]
    symbol = torch.nn.functional.pad(px.clamp(min=NEVER).transpose(1, 2), (0, 1), value=NEVER)
    blank = py.clamp(min=NEVER).transpose(1, 2)  # (B, T, S + 1)
    if regular:
        blank = torch.nn.functional.pad(blank, (0, 0, 0, 1))
        frames = torch.arange(x_frames, device=py.device)[:, None]
        contexts = torch.arange(num_symbols + 1, device=py.device)
        last, end = boundary[:, 2, None, None], boundary[:, 3, None, None]
        blank = blank.masked_fill(frames == end, NEVER)
        blank = blank.masked_fill((frames == end) & (contexts == last), 0.0)
        boundary = boundary.clone()
        boundary[:, 3] += 1
    symbol, blank = (x.to(backend.score_dtype or x.dtype).contiguous() for x in (symbol, blank))
    whole = BandScores(symbol, blank, norm=blank)  # of logits, of which there are none
    labels = boundary.new_zeros(num_batch, num_symbols)
    lattice = Lattice(labels, boundary, 0, "regular" if regular else "modified")
    band = Band(lattice, boundary.new_zeros(num_batch, x_frames))
    result = backend.band_lattice(whole, band, want_grad)
    scores = -result.loss.to(px.dtype)
    if result.counts is None:
        return scores, None, None
    px_grad = result.counts.symbol[:, :, :num_symbols].transpose(1, 2).to(px.dtype)
    py_grad = result.counts.blank[:, : py.shape[2]].transpose(1, 2)
    if regular:  # without the blank that was added, where the utterance is shorter than the batch
        py_grad = py_grad * (frames[: py.shape[2], 0] < end)
    return scores, px_grad.contiguous(), py_grad.to(py.dtype).contiguous()


def mutual_information_recursion(
    px: Tensor,
    py: Tensor,
    boundary: Optional[Tensor] = None,
    return_grad: bool = False,
    *,
    backend: str = "auto",
) -> Union[Tensor, ScoresAndCounts]:
    """Compute the log of the sum over all paths of each lattice.

    Args:
      px: (B, S, T + 1), scores of the symbols of a regular lattice, in which the last frame may be
        followed by symbols with scores other than -inf; or (B, S, T), of the others.
      py: (B, S + 1, T), scores of the blanks.
      boundary: (B, 4), see :mod:`asr_core.ops.rnnt_loss`.
      return_grad: whether to return the occupation counts too.
      backend: see :mod:`asr_core.ops.rnnt_loss`.

    Returns:
      Scores (B,), -inf where there is no path; with ``return_grad`` (scores, (px_grad, py_grad)),
      the occupation counts in the shapes of px and py, without autograd history.

    Raises:
      ValueError: the arguments do not fit together.
    """
    px, py, boundary = _checked(px, py, boundary)
    arguments = (boundary, return_grad, backend_for(backend, py))
    scores, px_grad, py_grad = _Recursion.apply(px, py, *arguments)
    return (scores, (px_grad, py_grad)) if return_grad else scores


def joint_mutual_information_recursion(
    px: Sequence[Tensor],
    py: Sequence[Tensor],
    boundary: Optional[Tensor] = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Compute scores as :func:`mutual_information_recursion` does, of arcs whose scores are sums of
    N terms, and say what each term contributes.

    Args:
      px: N tensors (B, S, T + 1) or (B, S, T).
      py: N tensors (B, S + 1, T).
      boundary, backend: see :func:`mutual_information_recursion`.

    Returns:
      (N, B). The sum over N is the score; a row is the mean of its term over the paths, and the
      first also holds the entropy of the paths.
    """
    if len(px) != len(py) or not px:
        raise ValueError(f"px and py must have equally many terms, at least one, not {len(px)} and {len(py)}")
    x_terms, y_terms = torch.stack(tuple(px)), torch.stack(tuple(py))  # (N, B, ...)
    whole_px, whole_py, boundary = _checked(x_terms.sum(0), y_terms.sum(0), boundary)
    with torch.no_grad():
        scores, px_grad, py_grad = _sum_paths(
            whole_px, whole_py, boundary, True, backend_for(backend, whole_py)
        )
    assert px_grad is not None and py_grad is not None
    means = _mean_of(x_terms, px_grad) + _mean_of(y_terms, py_grad)
    rest = (scores - means.sum(0)).detach()
    return torch.cat((means[:1] + rest, means[1:]))


def _mean_of(terms: Tensor, counts: Tensor) -> Tensor:
    """Return the sums (N, B) over arcs of terms (N, B, ...) times counts; no path takes an arc of
    score -inf.
    """
    taken = torch.where(counts == 0, torch.zeros_like(terms), terms)
    return (taken * counts).sum(dim=(2, 3))


def _checked(px: Tensor, py: Tensor, boundary: Optional[Tensor]) -> Tuple[Tensor, Tensor, Tensor]:
    """Check the scores of the arcs and complete the boundary."""
    if px.ndim != 3 or py.ndim != 3 or px.dtype != py.dtype:
        raise ValueError(f"px and py must be (B, S, T) of one type, not {px.dtype} and {py.dtype}")
    num_batch, num_symbols, x_frames = px.shape
    num_frames = py.shape[2]
    if py.shape[:2] != (num_batch, num_symbols + 1) or x_frames - num_frames not in (0, 1):
        raise ValueError(f"px and py do not fit together: {tuple(px.shape)}, {tuple(py.shape)}")
    boundary = whole_boundary(boundary, (num_batch, num_symbols, num_frames), px.device)
    return computable(px), computable(py), boundary

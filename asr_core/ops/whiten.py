"""Gradient of the whitening metric (Yao et al. 2023, appendix A.2.2), in closed form instead of by
nested autograd.
"""

import itertools
import weakref
from typing import Callable, Dict, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced, operator

gpu_kernels = gpu.deferred("centring")


class _Covariance(NamedTuple):
    """Statistics of M samples of G groups of c channels.

    Attributes:
      samples: (G, M, c), with mean 0.
      covar: (G, c, c), the sums of their products.
      mean_diag: scalar, the mean of the diagonals of ``covar``.
      metric: scalar, see :func:`whitening_metric`.
    """

    samples: Tensor
    covar: Tensor
    mean_diag: Tensor
    metric: Tensor


def whitening_metric(x: Tensor, num_groups: int) -> Tensor:
    """Return how far the covariance of each group of channels is from a multiple of the identity.

    At least 1.

    With the covariance C of c channels it is ``(sum of C^2 / c) / (trace of C / c)^2``: the mean
    square of the eigenvalues over the square of their mean, without computing eigenvalues.

    Args:
      x: (..., C); all leading axes are samples.
      num_groups: groups into which the C channels are split.

    Returns:
      A scalar.
    """
    return _covariance(x, num_groups).metric


def _covariance(x: Tensor, num_groups: int) -> _Covariance:
    """Compute the statistics of x (..., C), at least in float32."""
    rows = x.reshape(-1, x.shape[-1])
    if not is_traced() and gpu.usable(rows):
        rows = gpu_kernels.centred(rows)
    else:
        rows = rows if rows.dtype == torch.float64 else rows.float()
        rows = rows - rows.mean(dim=0)
    samples = rows.view(rows.shape[0], num_groups, -1).transpose(0, 1)  # (G, M, c)
    covar = torch.matmul(samples.transpose(1, 2), samples)  # (G, c, c)
    num_channels = covar.shape[0] * covar.shape[1]
    mean_diag = covar.diagonal(dim1=1, dim2=2).sum() / num_channels
    metric = covar.square().sum() / num_channels / (mean_diag * mean_diag + 1e-20)  # silence has covariance 0
    return _Covariance(samples, covar, mean_diag, metric)


class _WhitenGradient(torch.autograd.Function):
    """Identity whose gradient pulls the covariance of x (..., C) towards a multiple of the
    identity.
    """

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        num_groups: int,
        limit: float,
        grad_scale: float,
        report: Callable[[Tensor], None],
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.num_groups, ctx.limit, ctx.grad_scale, ctx.report = num_groups, limit, grad_scale, report
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            statistics = _covariance(x, ctx.num_groups)
            exceeded = statistics.metric >= ctx.limit
            if not is_traced():
                ctx.report(exceeded)
            return _add_penalty(grad, statistics, exceeded, ctx.grad_scale), None, None, None, None


def _add_penalty(grad: Tensor, statistics: _Covariance, exceeded: Tensor, grad_scale: float) -> Tensor:
    """Add the metric's gradient to ``grad`` (..., C) where the boolean scalar ``exceeded`` is true.

    With X the samples, C = X'X and D the mean of C's diagonal, the metric is sum(C^2) / (G c) /
    D^2, and its gradient is proportional to X (C - metric D I).
    """
    if not is_traced() and exceeded.device.type == "cpu" and not bool(exceeded):
        return grad  # on an accelerator the question would make it wait
    samples, covar, mean_diag, metric = statistics
    identity = torch.eye(covar.shape[1], dtype=covar.dtype, device=covar.device)
    direction = covar - metric * mean_diag * identity  # (G, c, c)
    norm = (torch.matmul(covar, direction) * direction).sum().clamp(min=0).sqrt()  # |X M| from M'X'X M
    size = torch.linalg.vector_norm(grad, dtype=covar.dtype)
    scale = grad_scale * size / (norm + 1e-20) * exceeded.to(covar.dtype)
    push = torch.matmul(samples, direction * scale).transpose(0, 1).reshape(grad.shape)  # (..., C)
    return (grad + push).to(grad.dtype)


# the reports of modules whose gradients an operator computes, by their numbers
_REPORTS: "Dict[int, weakref.WeakMethod[Callable[[Tensor], None]]]" = {}
_NUMBERS = itertools.count(1)


def number_of_report(report: Callable[[Tensor], None]) -> int:
    """Return a number from which the backward pass of :func:`whiten_gradient_as_drawn` finds a
    bound method, as long as its object is alive.
    """
    number = next(_NUMBERS)
    _REPORTS[number] = weakref.WeakMethod(report, lambda _: _REPORTS.pop(number, None))
    return number


class _WhitenGradientAsDrawn(torch.autograd.Function):
    """As _WhitenGradient, where an operator reads in a table (R, 6) what to do."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, num_groups: int, table: Tensor, row: int) -> Tensor:
        ctx.save_for_backward(x, table)
        ctx.num_groups, ctx.row = num_groups, row
        return x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, None, None, None]:
        x, table = ctx.saved_tensors
        return _as_drawn_operator(grad, x, ctx.num_groups, table, ctx.row), None, None, None


def _like_grad(grad: Tensor, *_: object) -> Tensor:
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


@operator("whiten_as_drawn", _like_grad)
def _as_drawn_operator(grad: Tensor, x: Tensor, num_groups: int, table: Tensor, row: int) -> Tensor:
    acts, limit, grad_scale, number = table[row, :4].tolist()
    out = grad
    if acts:
        with torch.autocast(grad.device.type, enabled=False):
            statistics = _covariance(x, num_groups)
            exceeded = statistics.metric >= limit
            report = _REPORTS[number]() if number in _REPORTS else None
            if report is not None:
                report(exceeded)
            out = _add_penalty(grad, statistics, exceeded, grad_scale)
    return _like_grad(grad).copy_(out) if out is grad else out.contiguous()


def whiten_gradient_as_drawn(x: Tensor, num_groups: int, table: Tensor, row: int) -> Tensor:
    """Do what :func:`whiten_gradient` does, or nothing, as the backward pass reads.

    Args:
      x: (..., C).
      num_groups: groups of channels that are whitened separately.
      table: (R, 6) float64 on the CPU; a row holds whether to act, the limit, the size of the added
        gradient, and the number of a report, see :func:`number_of_report`.
      row: the row.
    """
    return _WhitenGradientAsDrawn.apply(x, num_groups, table, row)


def whiten_gradient(
    x: Tensor, num_groups: int, limit: float, grad_scale: float, report: Callable[[Tensor], None]
) -> Tensor:
    """Return ``x`` unchanged.

    In the backward pass add the metric's gradient where the metric is at or above ``limit``.

    Args:
      x: (..., C).
      num_groups: groups of channels that are whitened separately.
      limit: the metric below which nothing is added.
      grad_scale: norm of the added gradient, relative to the norm of the incoming gradient.
      report: called in the backward pass with a boolean scalar tensor: whether the metric reached
        the limit.
    """
    return _WhitenGradient.apply(x, num_groups, limit, grad_scale, report)

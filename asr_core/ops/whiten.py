"""Gradient of the whitening metric (Yao et al. 2023, section 3.4), without nested autograd."""

from typing import Any, Callable, Tuple

import torch
from torch import Tensor


def whitening_metric(x: Tensor, num_groups: int) -> Tensor:
    """How far the covariance of each group of channels is from a multiple of the identity; at least 1.

    Args:
      x: (..., C); all leading axes are samples.
      num_groups: groups into which the C channels are split.

    Returns:
      A scalar: mean square of the eigenvalues over the square of their mean.
    """
    centred, covar = _covariance(x, num_groups)
    return _metric(covar)[0]


def _covariance(x: Tensor, num_groups: int) -> Tuple[Tensor, Tensor]:
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if rows.dtype == torch.float64 else rows.float()
    rows = rows - rows.mean(dim=0)
    grouped = rows.view(rows.shape[0], num_groups, -1).transpose(0, 1)  # (G, M, c)
    return grouped, torch.matmul(grouped.transpose(1, 2), grouped)


def _metric(covar: Tensor) -> Tuple[Tensor, Tensor]:
    num_channels = covar.shape[0] * covar.shape[1]
    mean_diag = covar.diagonal(dim1=1, dim2=2).sum() / num_channels
    return covar.square().sum() / num_channels / (mean_diag * mean_diag + 1e-20), mean_diag


class _WhitenGradient(torch.autograd.Function):
    """Identity whose gradient pulls the covariance towards a multiple of the identity."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        num_groups: int,
        limit: float,
        grad_scale: float,
        report: Callable[[Tensor], None],
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.args = (num_groups, limit, grad_scale, report)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        num_groups, limit, grad_scale, report = ctx.args
        with torch.autocast(grad.device.type, enabled=False):
            grouped, covar = _covariance(x, num_groups)
            metric, mean_diag = _metric(covar)
            exceeded = metric >= limit
            report(exceeded)
            return (
                _add_penalty(grad, grouped, covar, metric, mean_diag, exceeded, grad_scale),
                None,
                None,
                None,
                None,
            )


def _add_penalty(
    grad: Tensor,
    grouped: Tensor,
    covar: Tensor,
    metric: Tensor,
    mean_diag: Tensor,
    exceeded: Tensor,
    grad_scale: float,
) -> Tensor:
    if exceeded.device.type == "cpu" and not bool(exceeded):
        return grad
    # metric = sum(C^2) / (G c) / D^2 with C = X'X, D = mean diag C, so its gradient is proportional to X (C - metric * D * I)
    direction = covar - metric * mean_diag * torch.eye(covar.shape[1], dtype=covar.dtype, device=covar.device)
    norm = (torch.matmul(covar, direction) * direction).sum().clamp(min=0).sqrt()  # |X M| from M'X'X M
    gradf = grad.to(covar.dtype)
    scale = grad_scale * torch.linalg.vector_norm(gradf) / (norm + 1e-20) * exceeded.to(covar.dtype)
    push = torch.matmul(grouped, direction * scale).transpose(0, 1).reshape(grad.shape)
    return (gradf + push).to(grad.dtype)


def whiten_gradient(
    x: Tensor, num_groups: int, limit: float, grad_scale: float, report: Callable[[Tensor], None]
) -> Tensor:
    """Return ``x`` unchanged; in the backward pass add the metric's gradient where the metric is at or above ``limit``.

    Args:
      x: (..., C).
      num_groups: groups of channels that are whitened separately.
      limit: the metric below which nothing is added.
      grad_scale: norm of what is added, relative to the norm of the incoming gradient.
      report: called in the backward pass with a boolean scalar tensor: did the metric reach the limit?
    """
    return _WhitenGradient.apply(x, num_groups, limit, grad_scale, report)

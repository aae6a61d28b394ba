"""BasicNorm: division by the root mean square, with a learned epsilon (pruned_transducer_stateless2..7 of icefall)."""

from typing import Any, Tuple

import torch
from torch import Tensor


def basic_norm_plain(x: Tensor, log_eps: Tensor) -> Tensor:
    """The formula of :func:`basic_norm` in plain operations (for scripting and tracing)."""
    return x * (torch.mean(x * x, dim=-1, keepdim=True) + log_eps.exp()) ** -0.5


class _BasicNorm(torch.autograd.Function):
    """Keeps x and one scale per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_eps: Tensor) -> Tensor:
        xf = x.to(log_eps.dtype)
        norm = torch.linalg.vector_norm(xf, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(log_eps.exp()).rsqrt_()
        ctx.save_for_backward(x, log_eps, scale)
        return (xf * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, Tensor]:
        x, log_eps, scale = ctx.saved_tensors
        grad, xf = grad.to(log_eps.dtype), x.to(log_eps.dtype)
        pull = torch.linalg.vecdot(grad, xf).unsqueeze(-1) * scale.pow(3)  # -2 d loss / d (mean square)
        dx = torch.addcmul(xf * (pull / -x.shape[-1]), grad, scale)
        return dx.to(x.dtype), pull.sum() * log_eps.exp() * -0.5


def basic_norm(x: Tensor, log_eps: Tensor) -> Tensor:
    """``x / sqrt(mean(x^2) + exp(log_eps))``, the mean over the last axis.

    Args:
      x: (..., C).
      log_eps: scalar.
    """
    return _BasicNorm.apply(x, log_eps)

"""BasicNorm: division by the root mean square, with a learned epsilon (icefall's first Zipformer
and its reworked Conformer).

LayerNorm removes the length of a vector, which a network may need (to show that a frame is silence,
say). A large epsilon lets some of it through; it is learned as a logarithm, so that it stays
positive.
"""

from typing import Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context


def basic_norm_plain(x: Tensor, log_eps: Tensor) -> Tensor:
    """Apply the formula of :func:`basic_norm` to x (..., C) in plain operations (for scripting and
    tracing).
    """
    return x * (torch.mean(x * x, dim=-1, keepdim=True) + log_eps.exp()) ** -0.5


class _BasicNorm(torch.autograd.Function):
    """Keeps x (..., C) and one scale per row, (..., 1)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, log_eps: Tensor) -> Tensor:
        xf = x.to(log_eps.dtype)
        norm = torch.linalg.vector_norm(xf, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(log_eps.exp()).rsqrt_()
        ctx.save_for_backward(x, log_eps, scale)
        return (xf * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Tensor, Tensor]:
        x, log_eps, scale = ctx.saved_tensors
        grad, xf = grad.to(log_eps.dtype), x.to(log_eps.dtype)
        pull = torch.linalg.vecdot(grad, xf).unsqueeze(-1) * scale.pow(3)  # -2 d loss / d (mean square)
        dx = torch.addcmul(xf * (pull / -x.shape[-1]), grad, scale)
        return dx.to(x.dtype), pull.sum() * log_eps.exp() * -0.5


def basic_norm(x: Tensor, log_eps: Tensor) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + exp(log_eps))``, the mean over the last axis.

    Args:
      x: (..., C).
      log_eps: scalar.

    Returns:
      (..., C)
    """
    return _BasicNorm.apply(x, log_eps)

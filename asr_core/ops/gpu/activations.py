"""Swoosh and its gradient, one pass over memory each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of a program


@triton.jit
def softplus(x):
    """Return log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _swoosh_forward(x_at, y_at, size, offset, constant, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    y = softplus(x - offset) - 0.08 * x - constant
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), at < size)


@triton.jit
def _swoosh_backward(x_at, dy_at, dx_at, size, offset, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    dy = tl.load(dy_at + at, at < size, other=0.0).to(tl.float32)
    tl.store(dx_at + at, (dy * (tl.sigmoid(x - offset) - 0.08)).to(dx_at.dtype.element_ty), at < size)


def swoosh_forward(x: Tensor, offset: float, constant: float) -> Tensor:
    """Return ``log(1 + exp(x - offset)) - 0.08 x - constant`` of a dense x (...)."""
    y = torch.empty_like(x)
    _swoosh_forward[(triton.cdiv(x.numel(), _BLOCK),)](x, y, x.numel(), offset, constant, BLOCK=_BLOCK)
    return y


def swoosh_backward(x: Tensor, dy: Tensor, offset: float) -> Tensor:
    """Return the gradient of x (...) from that of the output; both dense, of the same layout."""
    dx = torch.empty_like(x)
    _swoosh_backward[(triton.cdiv(x.numel(), _BLOCK),)](x, dy, dx, x.numel(), offset, BLOCK=_BLOCK)
    return dx

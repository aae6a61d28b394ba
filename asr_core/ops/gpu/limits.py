"""Gradients within soft limits, in one launch: launches are all that many small parameters cost."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _turn_outward(grad_at, x_at, out_at, size, low, high, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    grad = tl.load(grad_at + at, at < size, other=0.0).to(tl.float32)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    outward = ((grad > 0) & (x < low)) | ((grad < 0) & (x > high))
    tl.store(out_at + at, tl.where(outward, -grad, grad).to(out_at.dtype.element_ty), at < size)


def turn_outward(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return ``grad`` (...), negated where a step against it would carry ``x`` (...) further out of
    ``[low, high]``; both contiguous.
    """
    out = torch.empty_like(grad)
    size = grad.numel()
    block = min(_BLOCK, triton.next_power_of_2(max(1, size)))
    _turn_outward[(triton.cdiv(size, block),)](grad, x, out, size, low, high, BLOCK=block)
    return out

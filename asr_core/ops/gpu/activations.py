"""Swoosh and DoubleSwish and their gradients, one pass over memory each.

In half precision an activation keeps its slope for the backward pass in one byte per element. The
byte is rounded up or down by chance, so that gradients have the right mean: slope = code * step +
lowest, see :mod:`asr_core.ops.slopes`.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of a program
_ROWS = 4  # rows of a program that share a mask


@triton.jit
def softplus(x):
    """Return log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + log_of_sum(tl.exp(-tl.abs(x)))


@triton.jit
def log_of_sum(x):
    """Return log(1 + x) for x in [0, 1] to 2e-7.

    The hardware has the logarithm to base 2; the natural one would be some twenty instructions.
    """
    return tl.log2(1.0 + x) * 0.6931471805599453


@triton.jit
def code_of(scaled, x, at):
    """Round ``scaled`` (at least 0) down, or up with the probability of its fraction, to a byte.

    Chance is a hash of the value x (float32) and its place: a generator of random numbers would
    take longer than the pass over memory, and a step that is done again gives the same.
    """
    h = x.to(tl.uint32, bitcast=True) ^ (at.to(tl.uint32) * 0x9E3779B1)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    chance = ((h ^ (h >> 16)) >> 8).to(tl.float32) * 5.9604644775390625e-8  # 2^-24
    return tl.minimum(scaled + chance, 255.0).to(tl.uint8)  # 255 + chance may round to 256


@triton.jit
def _swoosh_forward(
    x_at, y_at, code_at, size, offset, constant, scale, shift, KEEP: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    y = softplus(x - offset) - 0.08 * x - constant
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), at < size)
    if KEEP:
        tl.store(code_at + at, code_of((tl.sigmoid(x - offset) - 0.08) * scale + shift, x, at), at < size)


@triton.jit
def _swoosh_backward(x_at, dy_at, dx_at, size, offset, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    dy = tl.load(dy_at + at, at < size, other=0.0).to(tl.float32)
    tl.store(dx_at + at, (dy * (tl.sigmoid(x - offset) - 0.08)).to(dx_at.dtype.element_ty), at < size)


@triton.jit
def _slope_backward(code_at, dy_at, dx_at, size, step, lowest, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slope = tl.load(code_at + at, at < size, other=0).to(tl.float32) * step + lowest
    dy = tl.load(dy_at + at, at < size, other=0.0).to(tl.float32)
    tl.store(dx_at + at, (dy * slope).to(dx_at.dtype.element_ty), at < size)


@triton.jit
def _double_swish_forward(x_at, y_at, code_at, size, scale, shift, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    s = tl.sigmoid(x - 1.0)
    tl.store(y_at + at, (x * s).to(y_at.dtype.element_ty), at < size)
    if KEEP:
        tl.store(code_at + at, code_of((s + x * s * (1.0 - s)) * scale + shift, x, at), at < size)


@triton.jit
def _double_swish_backward(x_at, dy_at, dx_at, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_at + at, at < size, other=0.0).to(tl.float32)
    dy = tl.load(dy_at + at, at < size, other=0.0).to(tl.float32)
    s = tl.sigmoid(x - 1.0)
    tl.store(dx_at + at, (dy * (s + x * s * (1.0 - s))).to(dx_at.dtype.element_ty), at < size)


@triton.jit
def _masked_swoosh(
    x_at, mask_at, y_at, dy_at, rows, size, offset, constant,
    MASKED: tl.constexpr, GRADIENT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute y = swoosh(x) mask of x (rows, size) and, where asked for, replace dy by the gradient
    of x.
    """
    blocks = tl.cdiv(size, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * size + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < size)
    x = tl.load(x_at + at, inside, other=0.0).to(tl.float32)
    y = softplus(x - offset) - 0.08 * x - constant
    slope = tl.sigmoid(x - offset) - 0.08
    if MASKED:
        mask = tl.load(mask_at + column, column < size, other=0.0).to(tl.float32)
        y = y * mask[None, :]
        slope = slope * mask[None, :]
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), inside)
    if GRADIENT:
        dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
        tl.store(dy_at + at, (dy * slope).to(dy_at.dtype.element_ty), inside)


def _grid(x: Tensor) -> Tuple[int]:
    return (triton.cdiv(x.numel(), _BLOCK),)


def swoosh_forward(x: Tensor, offset: float, constant: float) -> Tensor:
    """Return ``log(1 + exp(x - offset)) - 0.08 x - constant`` of a dense x (...)."""
    y = torch.empty_like(x)
    _swoosh_forward[_grid(x)](
        x, y, x, x.numel(), offset, constant, 0.0, 0.0, KEEP=False, BLOCK=_BLOCK
    )  # the third stands for codes that are not written
    return y


def swoosh_and_codes(
    x: Tensor, offset: float, constant: float, scale: float, shift: float
) -> Tuple[Tensor, Tensor]:
    """Return what :func:`swoosh_forward` does, and the codes of the slopes, bytes (...): the slope
    times ``scale`` plus ``shift``, rounded by chance.
    """
    y, codes = torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
    _swoosh_forward[_grid(x)](x, y, codes, x.numel(), offset, constant, scale, shift, KEEP=True, BLOCK=_BLOCK)
    return y, codes


def swoosh_backward(x: Tensor, dy: Tensor, offset: float) -> Tensor:
    """Return the gradient of x (...) from that of the output; both dense, of the same layout."""
    dx = torch.empty_like(x)
    _swoosh_backward[_grid(x)](x, dy, dx, x.numel(), offset, BLOCK=_BLOCK)
    return dx


def double_swish_forward(x: Tensor) -> Tensor:
    """Return ``x sigmoid(x - 1)`` of a dense x (...)."""
    y = torch.empty_like(x)
    _double_swish_forward[_grid(x)](x, y, x, x.numel(), 0.0, 0.0, KEEP=False, BLOCK=_BLOCK)
    return y


def double_swish_and_codes(x: Tensor, scale: float, shift: float) -> Tuple[Tensor, Tensor]:
    """Return what :func:`double_swish_forward` does, and codes as :func:`swoosh_and_codes`."""
    y, codes = torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
    _double_swish_forward[_grid(x)](x, y, codes, x.numel(), scale, shift, KEEP=True, BLOCK=_BLOCK)
    return y, codes


def double_swish_backward(x: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of x (...) from that of the output; both dense, of the same layout."""
    dx = torch.empty_like(x)
    _double_swish_backward[_grid(x)](x, dy, dx, x.numel(), BLOCK=_BLOCK)
    return dx


def slope_backward(codes: Tensor, dy: Tensor, step: float, lowest: float) -> Tensor:
    """Return ``dy * (codes * step + lowest)``; both (...), dense and of the same layout."""
    dx = torch.empty_like(dy)
    _slope_backward[_grid(dy)](codes, dy, dx, dy.numel(), step, lowest, BLOCK=_BLOCK)
    return dx


def _masked(
    x: Tensor, mask: Optional[Tensor], y: Tensor, dy: Optional[Tensor], offset: float, constant: float
) -> None:
    """Launch the kernel on x, y and dy (T, ...), contiguous; the mask (...) holds for all T."""
    size = x.numel() if mask is None else mask.numel()
    num_rows = 1 if size == 0 else x.numel() // size
    at_once = min(_ROWS, triton.next_power_of_2(num_rows))
    grid = (triton.cdiv(num_rows, at_once) * triton.cdiv(size, _BLOCK),)
    _masked_swoosh[grid](
        x,
        x if mask is None else mask,
        y,
        x if dy is None else dy,
        num_rows,
        size,
        offset,
        constant,
        MASKED=mask is not None,
        GRADIENT=dy is not None,
        ROWS=at_once,
        BLOCK=_BLOCK,
    )


def swoosh_masked(x: Tensor, mask: Tensor, offset: float, constant: float) -> Tensor:
    """Return ``swoosh(x) * mask`` of x (T, ...), contiguous, and mask (1, ...)."""
    y = torch.empty_like(x)
    _masked(x, mask, y, None, offset, constant)
    return y


def swoosh_both(
    x: Tensor, dy: Tensor, mask: Optional[Tensor], offset: float, constant: float
) -> Tuple[Tensor, Tensor]:
    """Return ``swoosh(x) * mask`` and the gradient of x (T, ...), which overwrites ``dy``.

    All are contiguous; the mask is (1, ...) or None.
    """
    y = torch.empty_like(x)
    _masked(x, mask, y, dy, offset, constant)
    return y, dy

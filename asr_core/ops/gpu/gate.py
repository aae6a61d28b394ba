"""The gated linear unit, with zeros at padding, and its gradient: one pass over memory each."""

from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

_SIZE = 2048  # elements of a program


@triton.jit(do_not_specialize=["R", "N", "mask_t", "mask_n"])
def _gate(
    x_at, dy_at, out_at, mask_at, mask_t, mask_n, R, N, C,
    MASK: tl.constexpr, BACKWARD: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (r < R)[:, None] & (c < C)[None, :]
    row = r.to(tl.int64)[:, None]
    here, there = row * 2 * C + c[None, :], row * 2 * C + C + c[None, :]  # the value's place, the gate's
    read = inside
    if MASK:
        padded = tl.load(mask_at + r // N * mask_t + r % N * mask_n, r < R, other=1) != 0
        read = inside & (padded == 0)[:, None]
    x = tl.load(x_at + here, read, other=0.0).to(tl.float32)
    gate = tl.sigmoid(tl.load(x_at + there, read, other=0.0).to(tl.float32))
    out_type = out_at.dtype.element_ty
    if BACKWARD:
        dy = tl.load(dy_at + row * C + c[None, :], read, other=0.0).to(tl.float32)
        tl.store(out_at + here, (dy * gate).to(out_type), inside)
        tl.store(out_at + there, (dy * x * gate * (1.0 - gate)).to(out_type), inside)
    else:
        tl.store(out_at + row * C + c[None, :], (x * gate).to(out_type), inside)


def _launch(x: Tensor, dy: Optional[Tensor], pad_mask: Optional[Tensor], out: Tensor) -> None:
    """Run the kernel on a contiguous x (T, N, 2 C)."""
    T, N, width = x.shape
    C = width // 2
    channels = min(256, triton.next_power_of_2(C))
    rows = _SIZE // channels
    mask = x if pad_mask is None else pad_mask.view(torch.uint8)
    _gate[(triton.cdiv(T * N, rows), triton.cdiv(C, channels))](
        x, x if dy is None else dy, out, mask, *mask.stride()[:2], T * N, N, C,
        MASK=pad_mask is not None, BACKWARD=dy is not None, ROWS=rows, CHANNELS=channels,
    )  # fmt: skip


def gate_forward(x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
    """Gate a contiguous x (T, N, 2 C); the mask (T, N) is True at padding: (T, N, C)."""
    y = x.new_empty(*x.shape[:2], x.size(2) // 2)
    _launch(x, None, pad_mask, y)
    return y


def gate_backward(x: Tensor, dy: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
    """Return the gradient of x (T, N, 2 C) from that of the output, dy (T, N, C)."""
    dx = torch.empty_like(x)
    _launch(x, dy.contiguous(), pad_mask, dx)
    return dx

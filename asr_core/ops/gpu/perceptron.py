"""The perceptron of a ConvNeXt block, added to the block's input, without its hidden array.

The hidden array is the largest of a model: three times as wide as the block, for each frame and
frequency. Here a program keeps a block of positions, goes through the hidden units some at a time,
and has their values in registers alone.

The backward pass computes them again from the perceptron's input, twice. A program for the
gradient of the input goes the same way as one of the forward pass. A program for the gradients of
the weights has some hidden units and goes through a share of the positions; the sums of the shares
are added up afterwards, in the same order every time. Where the balancer acts, one pass before
these sums up the hidden values and their squares.

Positions are rows (N, L, C) of N sequences; L is the number of frames times that of frequencies.
"""

from typing import List, NamedTuple, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu.activations import log_of_sum, softplus
from asr_core.ops.gpu.balancer import coefficients
from asr_core.ops.gpu.products import block_width, precision, product

_PARTS = 64  # programs at most that share the positions in sums over them
# arguments that differ from batch to batch: no kernel is compiled anew for their values
_VARYING = ["N", "L"]


class _Blocks(NamedTuple):
    """How much a program holds at a time.

    Attributes:
      rows: positions.
      hidden: hidden units.
      warps: of the program.
    """

    rows: int
    hidden: int
    warps: int


@triton.jit
def _load(at, row, rows, column, columns):
    """Return a block (R, C) of a contiguous matrix (rows, columns), zero beyond its ends."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(at + row.to(tl.int64)[:, None] * columns + column[None, :], inside, other=0.0)


@triton.jit
def _hidden(y, w1_at, b1_at, h, H, c, C, PRECISION: tl.constexpr):
    """Return the hidden units h (HIDDEN,) of inputs y (ROWS, WIDTH): (ROWS, HIDDEN) float32."""
    bias = tl.load(b1_at + h, h < H, other=0.0).to(tl.float32)
    return product(y, tl.trans(_load(w1_at, h, H, c, C)), PRECISION) + bias[None, :]


@triton.jit
def _coefficients(at, h, H):
    """Return the balancer's coefficients of the hidden units h (HIDDEN,)."""
    return tl.load(at + h, h < H, other=0.0), tl.load(at + H + h, h < H, other=0.0)


@triton.jit(do_not_specialize=["L", "x_rows"])
def _perceptron_forward(
    x_at, x_rows, y_at, w1_at, b1_at, w2_at, b2_at, keep_at, out_at, L, C, H, offset, constant,
    KEEP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    row, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    y = _load(y_at + n * L * C, row, L, c, C)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, H, HIDDEN):
        h = start + tl.arange(0, HIDDEN)
        hidden = _hidden(y, w1_at, b1_at, h, H, c, C, PRECISION)
        active = softplus(hidden - offset) - 0.08 * hidden - constant
        w2 = _load(w2_at, c, C, h, H)
        total += product(active.to(y.dtype), tl.trans(w2), PRECISION)
    total += tl.load(b2_at + c, c < C, other=0.0).to(tl.float32)[None, :]
    if KEEP:
        total *= tl.load(keep_at + n).to(tl.float32)
    total += _load(x_at + n * x_rows * C, row, L, c, C).to(tl.float32)
    at = out_at + n * L * C + row.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(at, total.to(out_at.dtype.element_ty), (row < L)[:, None] & (c < C)[None, :])


@triton.jit
def _kept(grad_at, keep_at, n, row, L, c, C, dtype: tl.constexpr, KEEP: tl.constexpr):
    """Return the gradient (ROWS, WIDTH) of the perceptron's result from that of the sum."""
    grad = _load(grad_at + n * L * C, row, L, c, C)
    if KEEP:
        grad = grad.to(tl.float32) * tl.load(keep_at + n).to(tl.float32)
    return grad.to(dtype)


@triton.jit(do_not_specialize=_VARYING)
def _hidden_sums(
    y_at, w1_at, b1_at, sums_at, N, L, C, H,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the sums of hidden values and of their squares over a part: sums (parts, 2, H)."""
    part, parts = tl.program_id(1), tl.num_programs(1)
    h, c = tl.program_id(0) * HIDDEN + tl.arange(0, HIDDEN), tl.arange(0, WIDTH)
    w1, bias = _load(w1_at, h, H, c, C), tl.load(b1_at + h, h < H, other=0.0).to(tl.float32)
    total, square = tl.zeros((HIDDEN,), tl.float32), tl.zeros((HIDDEN,), tl.float32)
    blocks = tl.cdiv(L, ROWS)
    for item in range(part, N * blocks, parts):
        n, row = (item // blocks).to(tl.int64), item % blocks * ROWS + tl.arange(0, ROWS)
        y = _load(y_at + n * L * C, row, L, c, C)
        hidden = product(w1, tl.trans(y), PRECISION) + bias[:, None]
        hidden = tl.where((row < L)[None, :], hidden, 0.0)
        total += tl.sum(hidden, 1)
        square += tl.sum(hidden * hidden, 1)
    at = sums_at + part * 2 * H + h
    tl.store(at, total, h < H)
    tl.store(at + H, square, h < H)


@triton.jit(do_not_specialize=["L"])
def _input_grad(
    y_at, grad_at, w1_at, b1_at, w2_at, keep_at, coefficients_at, dy_at, sums_at, L, C, H, offset,
    KEEP: tl.constexpr, BALANCE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input, and the sums of the result's over a program's positions."""
    n = tl.program_id(1).to(tl.int64)
    row, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    y = _load(y_at + n * L * C, row, L, c, C)
    grad = _kept(grad_at, keep_at, n, row, L, c, C, y.dtype, KEEP)
    sums_at += (n * tl.num_programs(0) + tl.program_id(0)) * C
    tl.store(sums_at + c, tl.sum(grad.to(tl.float32), 0), c < C)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, H, HIDDEN):
        h = start + tl.arange(0, HIDDEN)
        hidden = _hidden(y, w1_at, b1_at, h, H, c, C, PRECISION)
        dh = product(grad, _load(w2_at, c, C, h, H), PRECISION) * (tl.sigmoid(hidden - offset) - 0.08)
        if BALANCE:
            a, b = _coefficients(coefficients_at, h, H)
            dh += tl.abs(dh) * (a[None, :] + b[None, :] * hidden)
        total += product(dh.to(y.dtype), _load(w1_at, h, H, c, C), PRECISION)
    at = dy_at + n * L * C + row.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(at, total.to(dy_at.dtype.element_ty), (row < L)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=_VARYING)
def _weight_grads(
    y_at, grad_at, w1_at, b1_at, w2_at, keep_at, coefficients_at, sums_at, bias_sums_at, N, L, C, H,
    offset, constant,
    KEEP: tl.constexpr, BALANCE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the sums of a part: of the weights (parts, 2, H, C), the second of them transposed, and
    of the first bias (parts, H).

    Hidden values are computed transposed: so they multiply the inputs from the left as they are.
    """
    part, parts = tl.program_id(1), tl.num_programs(1)
    h, c = tl.program_id(0) * HIDDEN + tl.arange(0, HIDDEN), tl.arange(0, WIDTH)
    w1, w2 = _load(w1_at, h, H, c, C), tl.trans(_load(w2_at, c, C, h, H))
    bias = tl.load(b1_at + h, h < H, other=0.0).to(tl.float32)
    dw1, dw2 = tl.zeros((HIDDEN, WIDTH), tl.float32), tl.zeros((HIDDEN, WIDTH), tl.float32)
    db1 = tl.zeros((HIDDEN,), tl.float32)
    blocks = tl.cdiv(L, ROWS)
    for item in range(part, N * blocks, parts):
        n, row = (item // blocks).to(tl.int64), item % blocks * ROWS + tl.arange(0, ROWS)
        y = _load(y_at + n * L * C, row, L, c, C)
        grad = _kept(grad_at, keep_at, n, row, L, c, C, y.dtype, KEEP)
        hidden = product(w1, tl.trans(y), PRECISION) + bias[:, None]
        z = hidden - offset
        e = tl.exp(-tl.abs(z))  # the activation and its slope share it
        active = tl.maximum(z, 0.0) + log_of_sum(e) - 0.08 * hidden - constant
        dw2 += product(active.to(y.dtype), grad, PRECISION)
        dh = product(w2, tl.trans(grad), PRECISION) * (tl.where(z >= 0.0, 1.0, e) / (1.0 + e) - 0.08)
        if BALANCE:
            a, b = _coefficients(coefficients_at, h, H)
            dh += tl.abs(dh) * (a[:, None] + b[:, None] * hidden)
        dw1 += product(dh.to(y.dtype), y, PRECISION)
        db1 += tl.sum(dh, 1)
    inside = (h < H)[:, None] & (c < C)[None, :]
    at = sums_at + (part * 2 * H + h).to(tl.int64)[:, None] * C + c[None, :]
    tl.store(at, dw1, inside)
    tl.store(at + H * C, dw2, inside)
    tl.store(bias_sums_at + part * H + h, db1, h < H)


def _rows(x: Tensor) -> Tensor:
    """Return x (N, C, T, F) as rows (N, L, C), contiguous: a view if its channels are innermost."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows (N, L, C) as the image (N, C, T, F) that has the shape of ``like``."""
    n, c, t, f = like.shape
    return rows.view(n, t, f, c).permute(0, 3, 1, 2)


def _matrices(y: Tensor, *weights: Tensor) -> List[Tensor]:
    """Return weights in the type of y, contiguous."""
    return [w.to(y.dtype).contiguous() for w in weights]


# Programs of the forward pass and of the input's gradient go through the hidden units, those of
# sums through positions. They hold as much as fits into the registers, so that the weights, or the
# positions, are read few times.
_FORWARD, _INPUT_GRAD, _SUMS = _Blocks(128, 64, 8), _Blocks(128, 32, 8), _Blocks(32, 64, 8)
_SMALL = _Blocks(32, 32, 8)  # of any kernel, without matrix units, or without whole vectors of columns


def _blocks(usual: _Blocks, y: Tensor, w1: Tensor) -> _Blocks:
    """Return the blocks for y (N, L, C) and w1 (H, C)."""
    vectors = all(size % 16 == 0 for size in w1.shape)
    return usual if vectors and y.dtype != torch.float32 else _SMALL


def _residual(x: Tensor) -> Tuple[Tensor, int]:
    """Return x (N, C, T, F) as (N, T, F, C), contiguous within a sequence, and how many rows (C,)
    lie from one sequence to the next, which need not be adjacent.
    """
    rows = x.permute(0, 2, 3, 1)
    channels = rows.size(3)
    if not rows.numel() or not rows[0].is_contiguous() or rows.stride(0) % channels:
        rows = rows.contiguous()
    return rows, rows.stride(0) // channels


def forward(
    x: Tensor,
    y: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    keep: Optional[Tensor],
    offset: float,
    constant: float,
) -> Tensor:
    """Return ``x + keep * perceptron(y)``, see :func:`asr_core.ops.perceptron.add_perceptron`."""
    image, y = y, _rows(y)
    (w1, w2), (x, x_rows) = _matrices(y, w1, w2), _residual(x)
    N, L, C = y.shape
    out = torch.empty(N, L, C, dtype=torch.promote_types(x.dtype, y.dtype), device=y.device)
    rows, hidden, warps = _blocks(_FORWARD, y, w1)
    _perceptron_forward[(triton.cdiv(L, rows), N)](
        x, x_rows, y, w1, b1, w2, b2, y if keep is None else keep, out, L, C, w1.size(0), offset, constant,
        KEEP=keep is not None, ROWS=rows, WIDTH=block_width(C), HIDDEN=hidden, PRECISION=precision(),
        num_warps=warps, num_stages=2,
    )  # fmt: skip
    return _image(out, image)


def _balancer(y: Tensor, w1: Tensor, b1: Tensor, balance: List[float], constant: float) -> Tensor:
    """Return the coefficients (2, H) of the balancer of the hidden units of y (N, L, C)."""
    (N, L, C), H = y.shape, w1.size(0)
    rows, hidden, warps = _blocks(_SUMS, y, w1)
    parts = min(_PARTS, N * triton.cdiv(L, rows))
    sums = torch.empty(parts, 2, H, dtype=torch.float32, device=y.device)
    _hidden_sums[(triton.cdiv(H, hidden), parts)](
        y, w1, b1, sums, N, L, C, H, ROWS=rows, WIDTH=block_width(C), HIDDEN=hidden,
        PRECISION=precision(), num_warps=warps, num_stages=2,
    )  # fmt: skip
    m_lo, m_hi, r_lo, r_hi, grad_scale = balance
    return coefficients(sums, N * L, (m_lo, m_hi, r_lo, r_hi), grad_scale, constant)


def backward(
    grad: Tensor,
    y: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    keep: Optional[Tensor],
    balance: List[float],
    offset: float,
    constant: float,
    least_variance: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of y (N, C, T, F), w1 (H, C), b1 (H,), w2 (C, H) and b2 (C,) from that
    of the result, (N, C, T, F).

    Args:
      balance: bounds and scale of the balancer of hidden units, or nothing.
      least_variance: see ``constant`` of :func:`asr_core.ops.gpu.balancer.coefficients`.
      grad, y, w1, b1, w2, keep, offset, constant: see :func:`forward`.
    """
    image, types, y, grad = y, (w1.dtype, b1.dtype, w2.dtype), _rows(y), _rows(grad)
    w1, w2 = _matrices(y, w1, w2)
    (N, L, C), H = y.shape, w1.size(0)
    both = _balancer(y, w1, b1, balance, least_variance) if balance else b1
    given = (y, grad, w1, b1, w2, y if keep is None else keep, both)
    flags = dict(KEEP=keep is not None, BALANCE=len(balance) > 0, WIDTH=block_width(C), PRECISION=precision())
    rows, hidden, warps = _blocks(_INPUT_GRAD, y, w1)
    dy, blocks = torch.empty_like(y), triton.cdiv(L, rows)
    sums2 = torch.empty(N * blocks, C, dtype=torch.float32, device=y.device)
    _input_grad[(blocks, N)](
        *given, dy, sums2, L, C, H, offset, **flags,
        ROWS=rows, HIDDEN=hidden, num_warps=warps, num_stages=2,
    )  # fmt: skip
    rows, hidden, warps = _blocks(_SUMS, y, w1)
    parts = min(_PARTS, N * triton.cdiv(L, rows))
    sums, sums1 = sums2.new_empty(parts, 2, H, C), sums2.new_empty(parts, H)
    _weight_grads[(triton.cdiv(H, hidden), parts)](
        *given, sums, sums1, N, L, C, H, offset, constant, **flags,
        ROWS=rows, HIDDEN=hidden, num_warps=warps, num_stages=2,
    )  # fmt: skip
    dw1, dw2 = sums.sum(dim=0).unbind(0)
    db1, db2 = sums1.sum(dim=0), sums2.sum(dim=0)
    return _image(dy, image), dw1.to(types[0]), db1.to(types[1]), dw2.t().to(types[2]), db2.to(types[1])

"""Depthwise convolutions with the channels innermost, over time or over time and frequency.

A program of a convolution computes a block of positions and channels; each tap reads the block
again, shifted, mostly from the first cache. What lies outside the sequence or chunk is not read and
counts as zero. The gradient of the input is the convolution of the output's with the taps in
reverse order.

A program of the weights' gradient goes through some of the positions. At each it multiplies the
gradient of the output (C,) with what all the taps see there (taps, C); one more tap sees 1, for the
bias. The programs' sums are added up afterwards, in the same order every time.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHANNELS = 64  # of a program
_FRAMES = 32  # of a program, in one dimension
_POSITIONS = 64  # of a program, in two dimensions
_SEGMENT = 32  # adjacent frames that a program sums up at a time
_PARTS = 512  # programs at most that share the sums


@triton.jit(do_not_specialize=["T", "N", "chunk"])
def _conv1d(
    x_at, w_at, bias_at, y_at, T, N, C, pad, chunk,
    K: tl.constexpr, CHUNKS: tl.constexpr, FLIP: tl.constexpr, BIAS: tl.constexpr,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(C, CHANNELS)
    c = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    t = (tl.program_id(0) // blocks) * FRAMES + tl.arange(0, FRAMES)
    n = tl.program_id(1).to(tl.int64)
    x_at += n * C
    low, high = t * 0, t * 0 + T
    if CHUNKS:
        low = t // chunk * chunk
        high = tl.minimum(low + chunk, T)
    y = tl.zeros((FRAMES, CHANNELS), tl.float32)
    if BIAS:
        y += tl.load(bias_at + c, c < C, other=0.0).to(tl.float32)[None, :]
    for k in range(K):
        s = t + pad - k if FLIP else t + k - pad
        inside = ((s >= low) & (s < high) & (t < T))[:, None] & (c < C)[None, :]
        x = tl.load(x_at + s.to(tl.int64)[:, None] * (N * C) + c[None, :], inside, other=0.0)
        w = tl.load(w_at + k * C + c, c < C, other=0.0).to(tl.float32)
        y += x.to(tl.float32) * w[None, :]
    at = (t.to(tl.int64)[:, None] * N + n) * C + c[None, :]
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), (t < T)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["T", "N", "chunk", "segments"])
def _conv1d_weight_grad(
    x_at, dy_at, sums_at, T, N, C, pad, chunk, segments,
    K: tl.constexpr, CHUNKS: tl.constexpr, TAPS: tl.constexpr, SEGMENT: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    part, parts = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    k = tl.arange(0, TAPS)
    sums = tl.zeros((TAPS, CHANNELS), tl.float32)
    for item in range(part, N * segments, parts):
        n = (item // segments).to(tl.int64)
        begin = item % segments * SEGMENT
        for t in range(begin, tl.minimum(begin + SEGMENT, T)):
            low, high = 0, T
            if CHUNKS:
                low = t // chunk * chunk
                high = tl.minimum(low + chunk, T)
            s = t + k - pad
            inside = ((s >= low) & (s < high) & (k < K))[:, None] & (c < C)[None, :]
            x = tl.load(x_at + (s.to(tl.int64)[:, None] * N + n) * C + c[None, :], inside, other=0.0)
            x = tl.where((k == K)[:, None], 1.0, x.to(tl.float32))
            dy = tl.load(dy_at + (tl.cast(t, tl.int64) * N + n) * C + c, c < C, other=0.0)
            sums += x * dy.to(tl.float32)[None, :]
    at = (part * (K + 1) + k).to(tl.int64)[:, None] * C + c[None, :]
    tl.store(sums_at + at, sums, (k <= K)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["T"])
def _conv2d(
    x_at, w_at, bias_at, lens_at, y_at, T, C,
    F: tl.constexpr, KT: tl.constexpr, KF: tl.constexpr, LENS: tl.constexpr, FLIP: tl.constexpr,
    BIAS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    n = tl.program_id(2).to(tl.int64)
    t, f = position // F, position % F
    x_at += n * T * F * C
    y_at += n * T * F * C
    length = T
    if LENS:
        length = tl.minimum(tl.load(lens_at + n), T).to(tl.int32)
    end = T if FLIP else length
    y = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    if BIAS:
        y += tl.load(bias_at + c, c < C, other=0.0).to(tl.float32)[None, :]
    for tap in range(KT * KF):
        i, j = tap // KF - KT // 2, tap % KF - KF // 2
        if FLIP:
            i, j = -i, -j
        seen = (t + i >= 0) & (t + i < end) & (f + j >= 0) & (f + j < F)
        at = (position + i * F + j).to(tl.int64)[:, None] * C + c[None, :]
        x = tl.load(x_at + at, seen[:, None] & (c < C)[None, :], other=0.0)
        w = tl.load(w_at + tap * C + c, c < C, other=0.0).to(tl.float32)
        y += x.to(tl.float32) * w[None, :]
    if FLIP:  # nothing comes back to what counts as zero
        y = tl.where((t < length)[:, None], y, 0.0)
    at = position.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), (t < T)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["N", "T"])
def _conv2d_weight_grad(
    x_at, dy_at, lens_at, sums_at, N, T, C,
    F: tl.constexpr, KT: tl.constexpr, KF: tl.constexpr, LENS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    part, parts = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    tap = tl.arange(0, ROWS * COLUMNS)
    row, column = tap // COLUMNS, tap % COLUMNS
    sums = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    for item in range(part, N * T, parts):
        n, t = (item // T).to(tl.int64), item % T
        length = T
        if LENS:
            length = tl.minimum(tl.load(lens_at + n), T).to(tl.int32)
        s = t + row - KT // 2
        seen = (row < KT) & (column < KF) & (s >= 0) & (s < length)
        for f in range(F):
            g = f + column - KF // 2
            inside = (seen & (g >= 0) & (g < F))[:, None] & (c < C)[None, :]
            at = ((n * T + s) * F + g)[:, None] * C + c[None, :]
            x = tl.load(x_at + at, inside, other=0.0).to(tl.float32)
            x = tl.where((column == KF)[:, None], 1.0, x)
            dy = tl.load(dy_at + ((n * T + t) * F + f) * C + c, c < C, other=0.0)
            sums += x * dy.to(tl.float32)[None, :]
    at = (part * ROWS * COLUMNS + tap).to(tl.int64)[:, None] * C + c[None, :]
    tl.store(sums_at + at, sums, (c < C)[None, :])


def _channels(num_channels: int) -> int:
    """Return the channels of a program."""
    return min(_CHANNELS, triton.next_power_of_2(num_channels))


def conv1d(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int, flip: bool = False
) -> Tensor:
    """Convolve x (T, N, C) as :func:`asr_core.ops.depthwise.depthwise_conv1d`, or, by ``flip``,
    return the input's gradient from the output's.
    """
    x = x.contiguous()
    y, w = torch.empty_like(x), weight[:, 0].t().contiguous()  # w: (K, C)
    T, N, C = x.shape
    channels = _channels(C)
    _conv1d[(triton.cdiv(T, _FRAMES) * triton.cdiv(C, channels), N)](
        x, w, w if bias is None else bias, y, T, N, C, pad, chunk,
        K=weight.size(2), CHUNKS=chunk > 0, FLIP=flip, BIAS=bias is not None and not flip,
        FRAMES=_FRAMES, CHANNELS=channels,
    )  # fmt: skip
    return y


def conv1d_weight_grad(x: Tensor, dy: Tensor, weight: Tensor, pad: int, chunk: int) -> Tuple[Tensor, Tensor]:
    """Return the gradients of the weight (C, 1, K) and of the bias (C,) from that of the output,
    dy (T, N, C).
    """
    x, dy = x.contiguous(), dy.contiguous()
    T, N, C = x.shape
    K, segments, channels = weight.size(2), triton.cdiv(T, _SEGMENT), _channels(C)
    parts = min(_PARTS, N * segments)
    sums = x.new_empty((parts, K + 1, C), dtype=torch.float32)
    _conv1d_weight_grad[(parts, triton.cdiv(C, channels))](
        x, dy, sums, T, N, C, pad, chunk, segments,
        K=K, CHUNKS=chunk > 0, TAPS=triton.next_power_of_2(K + 1), SEGMENT=_SEGMENT, CHANNELS=channels,
    )  # fmt: skip
    total = sums.sum(dim=0).to(weight.dtype)
    return total[:K].t().unsqueeze(1), total[K]


def _rows(x: Tensor) -> Tensor:
    """Return x (N, C, T, F) as (N, T, F, C), contiguous: a view if its channels are innermost."""
    return x.permute(0, 2, 3, 1).contiguous()


def conv2d(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], lens: Optional[Tensor], flip: bool = False
) -> Tensor:
    """Convolve x (N, C, T, F) as :func:`asr_core.ops.depthwise.depthwise_conv2d`, or, by ``flip``,
    return the input's gradient from the output's.
    """
    rows = _rows(x)
    y, w = torch.empty_like(rows), weight[:, 0].permute(1, 2, 0).contiguous()  # w: (KT, KF, C)
    N, T, F, C = rows.shape
    channels = _channels(C)
    _conv2d[(triton.cdiv(T * F, _POSITIONS), triton.cdiv(C, channels), N)](
        rows, w, w if bias is None else bias, w if lens is None else lens, y, T, C,
        F=F, KT=weight.size(2), KF=weight.size(3), LENS=lens is not None, FLIP=flip,
        BIAS=bias is not None and not flip, POSITIONS=_POSITIONS, CHANNELS=channels, num_warps=8,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def conv2d_weight_grad(
    x: Tensor, dy: Tensor, weight: Tensor, lens: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """Return the gradients of the weight (C, 1, KT, KF) and of the bias (C,) from that of the
    output, dy (N, C, T, F).
    """
    x, dy = _rows(x), _rows(dy)
    N, T, F, C = x.shape
    KT, KF, channels = weight.size(2), weight.size(3), _channels(C)
    rows, columns = triton.next_power_of_2(KT), triton.next_power_of_2(KF + 1)
    parts = min(_PARTS, N * T)
    sums = x.new_empty((parts, rows, columns, C), dtype=torch.float32)
    _conv2d_weight_grad[(parts, triton.cdiv(C, channels))](
        x, dy, sums if lens is None else lens, sums, N, T, C,
        F=F, KT=KT, KF=KF, LENS=lens is not None, ROWS=rows, COLUMNS=columns, CHANNELS=channels,
        num_warps=8,
    )  # fmt: skip
    total = sums.sum(dim=0).to(weight.dtype)  # (rows, columns, C)
    return total[:KT, :KF].permute(2, 0, 1).unsqueeze(1), total[0, KF]

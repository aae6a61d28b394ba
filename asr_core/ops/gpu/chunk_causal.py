"""The causal convolution over all frames plus the scaled one within chunks, in one pass.

The scale differs from 1 only within K frames of a chunk's edges. Frame f of a chunk takes row f of
the left edge; row j of the right edge belongs to frame ``end - K + j``, where ``end`` is the
chunk's length, or the sequence's if that is shorter.
"""

from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu.depthwise import conv1d_weight_grad

_CHANNELS = 64  # of a program
_FRAMES = 32  # of a program


@triton.jit
def _places(FRAMES: tl.constexpr, CHANNELS: tl.constexpr, C):
    """Return the frames (FRAMES,) and channels (CHANNELS,) of this program, and its sequence."""
    blocks = tl.cdiv(C, CHANNELS)
    t = (tl.program_id(0) // blocks) * FRAMES + tl.arange(0, FRAMES)
    c = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    return t, c, tl.program_id(1).to(tl.int64)


@triton.jit
def _end(lens_at, n, chunk, LENS: tl.constexpr):
    """Return the frame within a chunk of sequence n at which its right edge lies."""
    end = chunk
    if LENS:
        end = tl.minimum(tl.load(lens_at + n), chunk).to(tl.int32)
    return end


@triton.jit
def _scale(edges_at, frame, end, c, C, K: tl.constexpr):
    """Return the scale (R, S) of frames (R,) of a chunk and channels c (S,)."""
    left = (frame < K)[:, None] & (c < C)[None, :]
    scale = 1.0 + tl.load(edges_at + frame[:, None] * C + c[None, :], left, other=0.0).to(tl.float32)
    row = frame - (end - K)
    right = ((row >= 0) & (row < K))[:, None] & (c < C)[None, :]
    return scale + tl.load(edges_at + (K + row)[:, None] * C + c[None, :], right, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["T", "N", "chunk"])
def _forward(
    x_at, causal_at, causal_bias_at, w_at, bias_at, edges_at, lens_at, y_at, z_at, T, N, C, chunk,
    K: tl.constexpr, LENS: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    t, c, n = _places(FRAMES, CHANNELS, C)
    low = t // chunk * chunk
    z = tl.zeros((FRAMES, CHANNELS), tl.float32)
    z += tl.load(bias_at + c, c < C, other=0.0).to(tl.float32)[None, :]
    y = tl.zeros((FRAMES, CHANNELS), tl.float32)
    y += tl.load(causal_bias_at + c, c < C, other=0.0).to(tl.float32)[None, :]
    for k in range(K):
        s = t + k - K // 2
        inside = ((s >= 0) & (s < T) & (t < T))[:, None] & (c < C)[None, :]
        x = tl.load(x_at + (s.to(tl.int64)[:, None] * N + n) * C + c[None, :], inside, other=0.0)
        x = x.to(tl.float32)
        past = tl.load(causal_at + k * C + c, (c < C) & (k <= K // 2), other=0.0).to(tl.float32)
        y += x * past[None, :]
        w = tl.load(w_at + k * C + c, c < C, other=0.0).to(tl.float32)
        z += tl.where(((s >= low) & (s < low + chunk))[:, None], x, 0.0) * w[None, :]
    inside = (t < T)[:, None] & (c < C)[None, :]
    at = (t.to(tl.int64)[:, None] * N + n) * C + c[None, :]
    tl.store(z_at + at, z.to(z_at.dtype.element_ty), inside)
    y += z * _scale(edges_at, t - low, _end(lens_at, n, chunk, LENS), c, C, K)
    tl.store(y_at + at, y.to(y_at.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["T", "N", "chunk"])
def _scaled_grad(
    dy_at, edges_at, lens_at, dz_at, T, N, C, chunk,
    K: tl.constexpr, LENS: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    t, c, n = _places(FRAMES, CHANNELS, C)
    inside = (t < T)[:, None] & (c < C)[None, :]
    at = (t.to(tl.int64)[:, None] * N + n) * C + c[None, :]
    dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
    dz = dy * _scale(edges_at, t % chunk, _end(lens_at, n, chunk, LENS), c, C, K)
    tl.store(dz_at + at, dz.to(dz_at.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["T", "N", "chunk", "chunks"])
def _edges_grad(
    dy_at, z_at, lens_at, dedges_at, T, N, C, chunk, chunks,
    K: tl.constexpr, LENS: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum dy z over the frames that take a row of an edge: one for each chunk of each sequence."""
    row = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    sums = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, N * chunks, ITEMS):
        item = start + tl.arange(0, ITEMS)
        n = item % N
        frame = row + tl.zeros((ITEMS,), tl.int32)
        if row >= K:
            end = chunk + tl.zeros((ITEMS,), tl.int32)
            if LENS:
                end = tl.minimum(tl.load(lens_at + n), chunk).to(tl.int32)
            frame = row - 2 * K + end
        t = item // N * chunk + frame
        inside = (item < N * chunks) & (frame >= 0) & (frame < chunk) & (t < T)
        inside = inside[:, None] & (c < C)[None, :]
        at = (t.to(tl.int64) * N + n)[:, None] * C + c[None, :]
        dy = tl.load(dy_at + at, inside, other=0.0).to(tl.float32)
        sums += tl.sum(dy * tl.load(z_at + at, inside, other=0.0).to(tl.float32), 0)
    tl.store(dedges_at + row * C + c, sums.to(dedges_at.dtype.element_ty), c < C)


@triton.jit(do_not_specialize=["T", "N", "chunk"])
def _input_grad(
    dy_at, dz_at, causal_at, w_at, dx_at, T, N, C, chunk,
    K: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    s, c, n = _places(FRAMES, CHANNELS, C)
    low = s // chunk * chunk
    dx = tl.zeros((FRAMES, CHANNELS), tl.float32)
    for k in range(K):
        t = s - k + K // 2
        at = (t.to(tl.int64)[:, None] * N + n) * C + c[None, :]
        inside = ((t >= 0) & (t < T))[:, None] & (c < C)[None, :]
        dy = tl.load(dy_at + at, inside & (k <= K // 2), other=0.0).to(tl.float32)
        past = tl.load(causal_at + k * C + c, (c < C) & (k <= K // 2), other=0.0).to(tl.float32)
        dz = tl.load(dz_at + at, inside & ((t >= low) & (t < low + chunk))[:, None], other=0.0)
        w = tl.load(w_at + k * C + c, c < C, other=0.0).to(tl.float32)
        dx += dy * past[None, :] + dz.to(tl.float32) * w[None, :]
    at = (s.to(tl.int64)[:, None] * N + n) * C + c[None, :]
    tl.store(dx_at + at, dx.to(dx_at.dtype.element_ty), (s < T)[:, None] & (c < C)[None, :])


def _grid(x: Tensor) -> Tuple[Tuple[int, int], int]:
    """Return the programs for x (T, N, C), and the channels of each."""
    T, N, C = x.shape
    channels = min(_CHANNELS, triton.next_power_of_2(C))
    return (triton.cdiv(T, _FRAMES) * triton.cdiv(C, channels), N), channels


def _taps_first(weight: Tensor) -> Tensor:
    """Return weights (C, 1, K) as (K, C)."""
    return weight[:, 0].t().contiguous()


def forward(
    x: Tensor, parameters: Tuple[Tensor, ...], chunk: int, lens: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """Return the result of :func:`asr_core.ops.chunk_causal.chunk_causal_conv1d`, and the
    convolution within chunks before it is scaled, (T, N, C) both. ``x`` is contiguous, and the
    parameters are the tensors between ``x`` and ``chunk`` there.
    """
    causal_weight, causal_bias, weight, bias, edges = parameters
    y, z = torch.empty_like(x), torch.empty_like(x)
    grid, channels = _grid(x)
    by_tap = edges.transpose(1, 2).contiguous()  # (2, K, C)
    _forward[grid](
        x, _taps_first(causal_weight), causal_bias, _taps_first(weight), bias, by_tap,
        x if lens is None else lens, y, z, *x.shape, chunk,
        K=weight.size(2), LENS=lens is not None, FRAMES=_FRAMES, CHANNELS=channels,
    )  # fmt: skip
    return y, z


def backward(
    x: Tensor, z: Tensor, dy: Tensor, weights: Tuple[Tensor, ...], chunk: int, lens: Optional[Tensor]
) -> Tuple[Tensor, ...]:
    """Return the gradients of x and of the five parameters of :func:`forward`.

    Args:
      x, chunk, lens: as in the forward pass.
      z: (T, N, C), its second result.
      dy: (T, N, C), the gradient of its first.
      weights: the parameters that are no biases.
    """
    causal_weight, weight, edges = weights
    dy = dy.contiguous()
    K, (T, N, C) = weight.size(2), x.shape
    grid, channels = _grid(x)
    by_tap = edges.transpose(1, 2).contiguous()
    dz, dx, dedges = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(by_tap)
    ends = x if lens is None else lens
    blocks = dict(FRAMES=_FRAMES, CHANNELS=channels)
    _scaled_grad[grid](dy, by_tap, ends, dz, T, N, C, chunk, K=K, LENS=lens is not None, **blocks)
    _edges_grad[(2 * K, triton.cdiv(C, channels))](
        dy, z, ends, dedges, T, N, C, chunk, triton.cdiv(T, chunk),
        K=K, LENS=lens is not None, ITEMS=_FRAMES, CHANNELS=channels,
    )  # fmt: skip
    _input_grad[grid](
        dy, dz, _taps_first(causal_weight), _taps_first(weight), dx, T, N, C, chunk, K=K, **blocks
    )
    causal = conv1d_weight_grad(x, dy, causal_weight, K // 2, 0)
    return (dx, *causal, *conv1d_weight_grad(x, dz, weight, K // 2, chunk), dedges.transpose(1, 2))

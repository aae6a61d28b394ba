"""Depthwise convolutions over time with the channels innermost: no transposition, and a kernel of
our own on the CPU.
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable

if HAS_NUMBA:
    from asr_core.ops.cpu import depthwise as kernels

_PARTS = 8  # partial sums of the weight gradient, so that threads share none
_GRAIN = 16384  # elements of a frame worth a thread


def depthwise_conv1d_plain(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int) -> Tensor:
    """Return :func:`depthwise_conv1d` of x (T, N, C) by torch's own operations (for scripting,
    tracing and other devices).
    """
    num_frames, batch, channels = x.shape
    taps = weight.shape[2]
    if chunk > 0:
        num_chunks = (num_frames + chunk - 1) // chunk
        x = F.pad(x, (0, 0, 0, 0, 0, num_chunks * chunk - num_frames))
        x = x.reshape(num_chunks, chunk, batch, channels).permute(0, 2, 3, 1)  # (chunks, N, C, chunk)
        x = F.pad(x.reshape(num_chunks * batch, channels, chunk), (pad, taps - 1 - pad))
        y = F.conv1d(x, weight, bias, groups=channels)
        y = y.reshape(num_chunks, batch, channels, chunk).permute(0, 3, 1, 2)  # (chunks, chunk, N, C)
        return y.reshape(num_chunks * chunk, batch, channels)[:num_frames]
    y = F.conv1d(F.pad(x.permute(1, 2, 0), (pad, taps - 1 - pad)), weight, bias, groups=channels)
    return y.permute(2, 0, 1)


class _DepthwiseConv1d(torch.autograd.Function):
    """Both directions by the CPU kernels; keeps x (T, N, C) and the weight (C, 1, K)."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.args = (pad, chunk, bias is not None)
        return _correlate(x, weight, bias, pad, chunk, flip=False)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        pad, chunk, has_bias = ctx.args
        dy = dy.contiguous()
        num_frames, batch, channels = x.shape
        taps = weight.shape[2]
        dweight, dbias = x.new_zeros(_PARTS, taps, channels), x.new_zeros(_PARTS, channels)
        args = _kernel_args(x, weight, pad, chunk)._replace(w=dweight, bias=dbias, y=dy, P=_PARTS)
        kernels.conv1d_weight_grad(_PARTS, 1, args)
        dx = _correlate(dy, weight, None, pad, chunk, flip=True) if ctx.needs_input_grad[0] else None
        return dx, dweight.sum(0).t().unsqueeze(1), dbias.sum(0) if has_bias else None, None, None


def _correlate(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int, flip: bool) -> Tensor:
    """Run the kernel on x (T, N, C): the convolution, or by ``flip`` its input's gradient."""
    y = torch.empty_like(x)
    args = _kernel_args(x, weight, pad, chunk)._replace(
        w=weight[:, 0].t().contiguous(), bias=0 if bias is None else bias, y=y, flip=int(flip)
    )
    kernels.conv1d(x.shape[0], max(1, _GRAIN // (x.shape[1] * x.shape[2])), args)
    return y


def _kernel_args(x: Tensor, weight: Tensor, pad: int, chunk: int) -> "kernels.Conv1d":
    """Return the parameters that both directions share; x (T, N, C), weight (C, 1, K)."""
    num_frames, batch, channels = x.shape
    return kernels.Conv1d(
        x=x,
        w=0,
        bias=0,
        y=0,
        T=num_frames,
        N=batch,
        C=channels,
        K=weight.shape[2],
        P=0,
        pad=pad,
        chunk=chunk,
        flip=0,
    )


def depthwise_conv1d(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int = 0) -> Tensor:
    """Convolve each channel along the first axis, ``y[t] = bias + sum_k weight[:, 0, k] * x[t + k -
    pad]``.

    Frames outside the sequence count as zero; with ``chunk`` > 0 so do frames outside the chunk of
    ``chunk`` frames that t lies in.

    Args:
      x: (T, N, C).
      weight: (C, 1, K).
      bias: (C,) or None.
      pad: zeros before the first frame; ``K - 1 - pad`` follow the last.
      chunk: chunk length in frames, or 0.

    Returns:
      (T, N, C)
    """
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return depthwise_conv1d_plain(x, weight, bias, pad, chunk)
    if usable(x, weight, bias):
        return _DepthwiseConv1d.apply(x, weight, bias, pad, chunk)
    return depthwise_conv1d_plain(x, weight, bias, pad, chunk)


def blank_tails(x: Tensor, lens: Optional[Tensor]) -> Tensor:
    """Return x (N, C, T, F) with zeros from each length (N,) on; x itself without lengths."""
    if lens is None:
        return x
    tail = torch.arange(x.size(2), device=x.device).unsqueeze(0) >= lens.to(x.device).unsqueeze(1)
    return x.masked_fill(tail.unsqueeze(1).unsqueeze(3), 0.0)


class _DepthwiseConv2d(torch.autograd.Function):
    """torch's convolution of x (N, C, T, F), which takes what follows the lengths (N,) for zero.

    Backward to the input it is one with flipped weights, to the weights our kernel. A copy of x
    with zeros after the lengths would cost more than the frames that the zeros change.
    """

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, lens: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.lens = lens
        y = _conv2d(x, weight, bias)
        if lens is not None:
            _end_at_lens(y, x, weight, bias, lens)
        return y

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        rows, dy_rows = x.permute(0, 2, 3, 1).contiguous(), dy.permute(0, 2, 3, 1).contiguous()
        batch, num_frames, width, channels = rows.shape
        lens = ctx.lens if ctx.lens is not None else torch.full((batch,), num_frames)
        kt, kf = weight.shape[2:]
        dweight, dbias = x.new_zeros(_PARTS, kt, kf, channels), x.new_zeros(_PARTS, channels)
        sizes = dict(N=batch, T=num_frames, F=width, C=channels, KT=kt, KF=kf, P=_PARTS)
        args = kernels.Conv2dWeightGrad(rows, dy_rows, dweight, dbias, lens.contiguous(), **sizes)
        kernels.conv2d_weight_grad(_PARTS, 1, args)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _conv2d(dy_rows.permute(0, 3, 1, 2), weight.flip(2, 3), None)
            for row, n in zip(dx, lens.tolist()):
                row[:, n:] = 0.0
        return dx, dweight.sum(0).permute(2, 0, 1).unsqueeze(1), dbias.sum(0), None


def _end_at_lens(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, lens: Tensor) -> None:
    """Write to the convolution y of x (N, C, T, F) what it is if x is zero from each length on.

    That changes the frames from ``KT // 2`` before each length on; all but ``KT - 1`` of them are
    the bias alone.
    """
    num_frames, kt, kf = x.size(2), weight.size(2), weight.size(3)
    pad = kt // 2
    for row, n in zip(y, lens.tolist()):
        row[:, n + pad :] = bias.view(-1, 1, 1)
    n = torch.arange(x.size(0)).unsqueeze(1)
    t = lens.unsqueeze(1) + torch.arange(-2 * pad, 2 * pad)  # (N, 4 pad): frames that decide
    inside = (t >= 0) & (t < lens.unsqueeze(1))
    ends = x.permute(0, 2, 1, 3)[n, t.clamp(0, num_frames - 1)]  # (N, 4 pad, C, F)
    ends = ends.masked_fill_(~inside.unsqueeze(2).unsqueeze(3), 0.0).transpose(1, 2)
    ends = F.conv2d(ends, weight, bias, padding=(0, kf // 2), groups=weight.size(0))
    t = t[:, pad : pad + ends.size(2)]
    changed = (t >= 0) & (t < num_frames)
    y.permute(0, 2, 1, 3)[n.expand_as(t)[changed], t[changed]] = ends.transpose(1, 2)[changed]


def _conv2d(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Convolve x (N, C, T, F) by torch's own operation."""
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return F.conv2d(x, weight, bias, padding=padding, groups=weight.shape[0])


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], lens: Optional[Tensor] = None
) -> Tensor:
    """Convolve each channel along time and frequency, keeping the size; fast backward on the CPU.

    Args:
      x: (N, C, T, F), best in channels-last memory format.
      weight: (C, 1, KT, KF), both odd.
      bias: (C,) or None.
      lens: (N,) int64, at most T, frames of each sequence; what follows counts as zero. None: all.

    Returns:
      (N, C, T, F)
    """
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return _conv2d(blank_tails(x, lens), weight, bias)
    if bias is not None and usable(x, weight, bias) and torch.is_grad_enabled():
        return _DepthwiseConv2d.apply(x, weight, bias, lens)
    return _conv2d(blank_tails(x, lens), weight, bias)

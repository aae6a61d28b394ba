"""Depthwise convolutions over time with the channels innermost: no transposition, and a kernel of our own on the CPU."""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.cpu.dispatch import usable

_PARTS = 8  # partial sums of the weight gradient, so that threads share nothing


def depthwise_conv1d_plain(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int) -> Tensor:
    """The formula of :func:`depthwise_conv1d` in torch's own operations (for scripting, tracing and other devices)."""
    num_frames, batch, channels = x.shape
    taps = weight.shape[2]
    if chunk > 0:
        num_chunks = (num_frames + chunk - 1) // chunk
        x = F.pad(x, (0, 0, 0, 0, 0, num_chunks * chunk - num_frames))
        x = (
            x.reshape(num_chunks, chunk, batch, channels)
            .permute(0, 2, 3, 1)
            .reshape(num_chunks * batch, channels, chunk)
        )
        y = F.conv1d(F.pad(x, (pad, taps - 1 - pad)), weight, bias, groups=channels)
        y = (
            y.reshape(num_chunks, batch, channels, chunk)
            .permute(0, 3, 1, 2)
            .reshape(num_chunks * chunk, batch, channels)
        )
        return y[:num_frames]
    y = F.conv1d(F.pad(x.permute(1, 2, 0), (pad, taps - 1 - pad)), weight, bias, groups=channels)
    return y.permute(2, 0, 1)


class _DepthwiseConv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.args = (pad, chunk, bias is not None)
        return _correlate(x, weight, bias, pad, chunk, flip=False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        from asr_core.ops.cpu import depthwise

        x, weight = ctx.saved_tensors
        pad, chunk, has_bias = ctx.args
        dy = dy.contiguous()
        num_frames, batch, channels = x.shape
        taps = weight.shape[2]
        dweight, dbias = x.new_zeros(_PARTS, taps, channels), x.new_zeros(_PARTS, channels)
        sizes = [num_frames, batch, channels, taps, pad, chunk, _PARTS]
        depthwise.conv1d_weight_grad(_PARTS, 1, [x, dy, dweight, dbias, *sizes])
        dx = _correlate(dy, weight, None, pad, chunk, flip=True) if ctx.needs_input_grad[0] else None
        return dx, dweight.sum(0).t().unsqueeze(1), dbias.sum(0) if has_bias else None, None, None


def _correlate(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int, flip: bool) -> Tensor:
    from asr_core.ops.cpu import depthwise

    num_frames, batch, channels = x.shape
    y = torch.empty_like(x)
    w = weight[:, 0].t().contiguous()
    args = [
        x,
        w,
        0 if bias is None else bias,
        y,
        num_frames,
        batch,
        channels,
        weight.shape[2],
        pad,
        chunk,
        int(flip),
    ]
    depthwise.conv1d(num_frames, max(1, 16384 // (batch * channels)), args)
    return y


def depthwise_conv1d(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int = 0) -> Tensor:
    """Depthwise convolution along the first axis, ``y[t] = bias + sum_k weight[:, 0, k] * x[t + k - pad]``.

    Frames outside the sequence count as zero; with ``chunk`` > 0 so do frames outside the chunk of ``chunk`` frames that
    t lies in.

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


class _DepthwiseConv2d(torch.autograd.Function):
    """torch's convolution forward; backward to the input as a forward with flipped weights, to the weights by our kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _conv2d(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        from asr_core.ops.cpu import depthwise

        x, weight = ctx.saved_tensors
        rows, dy_rows = x.permute(0, 2, 3, 1).contiguous(), dy.permute(0, 2, 3, 1).contiguous()
        batch, num_frames, width, channels = rows.shape
        kt, kf = weight.shape[2:]
        dweight, dbias = x.new_zeros(_PARTS, kt, kf, channels), x.new_zeros(_PARTS, channels)
        sizes = [batch, num_frames, width, channels, kt, kf, _PARTS]
        depthwise.conv2d_weight_grad(_PARTS, 1, [rows, dy_rows, dweight, dbias, *sizes])
        dx = (
            _conv2d(dy_rows.permute(0, 3, 1, 2), weight.flip(2, 3), None) if ctx.needs_input_grad[0] else None
        )
        return dx, dweight.sum(0).permute(2, 0, 1).unsqueeze(1), dbias.sum(0)


def _conv2d(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    return F.conv2d(
        x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=weight.shape[0]
    )


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Depthwise 2-D convolution that keeps the size, fast backward on the CPU.

    Args:
      x: (N, C, T, F), best in channels-last memory format.
      weight: (C, 1, KT, KF), both odd.
      bias: (C,) or None.

    Returns:
      (N, C, T, F)
    """
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return _conv2d(x, weight, bias)
    if bias is not None and usable(x, weight, bias) and torch.is_grad_enabled():
        return _DepthwiseConv2d.apply(x, weight, bias)
    return _conv2d(x, weight, bias)

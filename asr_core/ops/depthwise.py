"""Depthwise convolutions over time with the channels innermost: no transposition, and kernels of
our own.
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import HAS_NUMBA, available, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.gpu.traced import will_run
from asr_core.ops.operators import is_exported, is_traced, operator

gpu_kernels = gpu.deferred("depthwise")
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


def _conv1d_forward(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int) -> Tensor:
    """Run the kernel for the device of x (T, N, C)."""
    if gpu.usable(x, weight, bias):
        return gpu_kernels.conv1d(x, weight, bias, pad, chunk)
    return _correlate(x.contiguous(), weight, bias, pad, chunk, flip=False)


def _conv1d_backward(
    x: Tensor, weight: Tensor, dy: Tensor, pad: int, chunk: int
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (T, N, C), the weight (C, 1, K) and the bias (C,)."""
    if gpu.usable(x, weight, dy):
        dx = gpu_kernels.conv1d(dy, weight, None, pad, chunk, flip=True)
        return (dx, *gpu_kernels.conv1d_weight_grad(x, dy, weight, pad, chunk))
    x, dy = x.contiguous(), dy.contiguous()
    num_frames, batch, channels = x.shape
    taps = weight.shape[2]
    dweight, dbias = x.new_zeros(_PARTS, taps, channels), x.new_zeros(_PARTS, channels)
    args = _kernel_args(x, weight, pad, chunk)._replace(w=dweight, bias=dbias, y=dy, P=_PARTS)
    kernels.conv1d_weight_grad(_PARTS, 1, args)
    dx = _correlate(dy, weight, None, pad, chunk, flip=True)
    return dx, dweight.sum(0).t().unsqueeze(1), dbias.sum(0)


class _DepthwiseConv1d(torch.autograd.Function):
    """Both directions by kernels; keeps x (T, N, C) and the weight (C, 1, K)."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int
    ) -> Tensor:
        x = x.contiguous()
        _keep_conv1d(ctx, (x, weight, bias, pad, chunk), x)
        return _conv1d_forward(x, weight, bias, pad, chunk)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        pad, chunk, has_bias = ctx.args
        dx, dweight, dbias = _conv1d_backward(x, weight, dy, pad, chunk)
        return dx, dweight, dbias if has_bias else None, None, None


def _keep_conv1d(
    ctx: Context, inputs: Tuple[Tensor, Tensor, Optional[Tensor], int, int], output: Tensor
) -> None:
    x, weight, bias, pad, chunk = inputs
    ctx.save_for_backward(x, weight)
    ctx.args = (pad, chunk, bias is not None)


def _conv1d_gradient(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
    x, weight = ctx.saved_tensors
    pad, chunk, has_bias = ctx.args
    dx, dweight, dbias = _conv1d_backward_operator(x, weight, dy, pad, chunk)
    return dx, dweight, dbias if has_bias else None, None, None


def _like_x(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _like_x_and_weights(x: Tensor, weight: Tensor, *_: object) -> Tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


@operator("depthwise_conv1d", _like_x, _conv1d_gradient, _keep_conv1d)
def _conv1d_operator(x: Tensor, weight: Tensor, bias: Optional[Tensor], pad: int, chunk: int) -> Tensor:
    return _conv1d_forward(x, weight, bias, pad, chunk)


@operator("depthwise_conv1d_backward", _like_x_and_weights)
def _conv1d_backward_operator(
    x: Tensor, weight: Tensor, dy: Tensor, pad: int, chunk: int
) -> Tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = _conv1d_backward(x, weight, dy, pad, chunk)
    return dx, dweight.contiguous(), dbias.clone()  # which must share no memory


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
    if is_exported():
        return depthwise_conv1d_plain(x, weight, bias, pad, chunk)
    if is_traced():
        if _operator_runs(x, weight, bias):
            return _conv1d_operator(_as_autocast(x), weight, bias, pad, chunk)
    elif gpu.usable(x, weight, bias) or usable(x, weight, bias):
        return _DepthwiseConv1d.apply(_as_autocast(x), weight, bias, pad, chunk)
    return depthwise_conv1d_plain(x, weight, bias, pad, chunk)


def _operator_runs(*tensors: Optional[Tensor]) -> bool:
    """Return whether there will be kernels for tensors (None allowed) that have no data yet."""
    on_cpu = all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu") for t in tensors)
    return (on_cpu and _available()) or will_run(*tensors)


@torch.compiler.assume_constant_result
def _available() -> bool:
    return available()


def _as_autocast(x: Tensor) -> Tensor:
    """Return x (T, N, C) or (N, C, T, F) in the type that autocast gives the input of a convolution
    on a GPU.
    """
    if x.is_cuda and torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def blank_tails(x: Tensor, lens: Optional[Tensor]) -> Tensor:
    """Return x (N, C, T, F) with zeros from each length (N,) on; x itself without lengths."""
    if lens is None:
        return x
    tail = torch.arange(x.size(2), device=x.device).unsqueeze(0) >= lens.to(x.device).unsqueeze(1)
    return x.masked_fill(tail.unsqueeze(1).unsqueeze(3), 0.0)


def _conv2d_forward(x: Tensor, weight: Tensor, bias: Tensor, lens: Optional[Tensor]) -> Tensor:
    """Convolve x (N, C, T, F), which counts as zero from the lengths (N,) on.

    On the CPU by torch: a copy of x with zeros after the lengths would cost more than the frames
    that the zeros change.
    """
    if gpu.usable(x, weight, bias):
        return gpu_kernels.conv2d(x, weight, bias, lens)
    y = _conv2d(x, weight, bias)
    if lens is not None:
        _end_at_lens(y, x, weight, bias, lens)
    return y


def _conv2d_backward(
    x: Tensor, weight: Tensor, dy: Tensor, lens: Optional[Tensor], needs_dx: bool = True
) -> Tuple[Optional[Tensor], Tensor, Tensor]:
    """Return the gradients of x (N, C, T, F), the weight (C, 1, KT, KF) and the bias (C,).

    On the CPU, backward to the input is torch's convolution with flipped weights, backward to the
    weights our kernel.
    """
    dx = None
    if gpu.usable(x, weight, dy):
        if needs_dx:
            dx = gpu_kernels.conv2d(dy, weight, None, lens, flip=True)
        return (dx, *gpu_kernels.conv2d_weight_grad(x, dy, weight, lens))
    rows, dy_rows = x.permute(0, 2, 3, 1).contiguous(), dy.permute(0, 2, 3, 1).contiguous()
    batch, num_frames, width, channels = rows.shape
    if lens is None:
        lens = torch.full((batch,), num_frames)
    kt, kf = weight.shape[2:]
    dweight, dbias = x.new_zeros(_PARTS, kt, kf, channels), x.new_zeros(_PARTS, channels)
    sizes = dict(N=batch, T=num_frames, F=width, C=channels, KT=kt, KF=kf, P=_PARTS)
    args = kernels.Conv2dWeightGrad(rows, dy_rows, dweight, dbias, lens.contiguous(), **sizes)
    kernels.conv2d_weight_grad(_PARTS, 1, args)
    if needs_dx:
        dx = _conv2d(dy_rows.permute(0, 3, 1, 2), weight.flip(2, 3), None)
        for row, n in zip(dx, lens.tolist()):
            row[:, n:] = 0.0
    return dx, dweight.sum(0).permute(2, 0, 1).unsqueeze(1), dbias.sum(0)


class _DepthwiseConv2d(torch.autograd.Function):
    """Keeps x (N, C, T, F) and the weight (C, 1, KT, KF)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, lens: Optional[Tensor]) -> Tensor:
        _keep_conv2d(ctx, (x, weight, bias, lens), x)
        return _conv2d_forward(x, weight, bias, lens)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, lens = ctx.saved_tensors
        return (*_conv2d_backward(x, weight, dy, lens, ctx.needs_input_grad[0]), None)


def _keep_conv2d(
    ctx: Context, inputs: Tuple[Tensor, Tensor, Tensor, Optional[Tensor]], output: Tensor
) -> None:
    x, weight, _, lens = inputs
    ctx.save_for_backward(x, weight, lens)


def _conv2d_gradient(ctx: Context, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
    x, weight, lens = ctx.saved_tensors
    return (*_conv2d_backward_operator(x, weight, dy, lens), None)


def _channels_last(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _channels_last_and_weights(x: Tensor, weight: Tensor, *_: object) -> Tuple[Tensor, Tensor, Tensor]:
    return (_channels_last(x), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1]))


@operator("depthwise_conv2d", _channels_last, _conv2d_gradient, _keep_conv2d)
def _conv2d_operator(x: Tensor, weight: Tensor, bias: Tensor, lens: Optional[Tensor]) -> Tensor:
    return _conv2d_forward(x, weight, bias, lens).contiguous(memory_format=torch.channels_last)


@operator("depthwise_conv2d_backward", _channels_last_and_weights)
def _conv2d_backward_operator(
    x: Tensor, weight: Tensor, dy: Tensor, lens: Optional[Tensor]
) -> Tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = _conv2d_backward(x, weight, dy, lens)
    assert dx is not None  # it was asked for
    return dx.contiguous(memory_format=torch.channels_last), dweight.contiguous(), dbias.clone()


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
    if is_exported():
        return _conv2d(blank_tails(x, lens), weight, bias)
    lens = lens if lens is None else lens.to(x.device)
    if is_traced():
        if bias is not None and _operator_runs(x, weight, bias):
            return _conv2d_operator(_as_autocast(x), weight, bias, lens)
    elif bias is not None:
        if gpu.usable(x, weight, bias) or (torch.is_grad_enabled() and usable(x, weight, bias)):
            return _DepthwiseConv2d.apply(_as_autocast(x), weight, bias, lens)
    return _conv2d(blank_tails(x, lens), weight, bias)

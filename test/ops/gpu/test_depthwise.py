"""The kernels of depthwise convolutions, in Triton's interpreter, against torch's in float64."""

import pytest
import torch

from asr_core.ops import depthwise

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def compare(got, expected, dtype):
    """Compare results and gradients; a sum of many terms is as exact as its largest partial sum."""
    assert [t.dtype for t in got] == [dtype, dtype, torch.float32, torch.float32][: len(got)]
    for one, other in zip(got, expected):
        size = other.detach().abs().max().clamp(min=1.0).item()
        torch.testing.assert_close(one.double(), other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


def check(function, plain, x, weight, bias, monkeypatch):
    """Compare a function and its gradients, run by the kernels for GPUs alone, with a plain one."""
    exact = [t if t is None else t.double().requires_grad_() for t in (x, weight, bias)]
    args = [t if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    want = plain(*exact)
    monkeypatch.setattr(depthwise, "usable", lambda *_: False)
    monkeypatch.setattr(depthwise, "depthwise_conv1d_plain", None)
    monkeypatch.setattr(depthwise, "_conv2d", None)
    y = function(*args)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    got = torch.autograd.grad(y, [t for t in args if t is not None], grad)
    expected = torch.autograd.grad(want, [t for t in exact if t is not None], grad.double())
    compare([y, *got], [want, *expected], x.dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "frames,batch,channels,taps,pad,chunk,bias",
    [
        (1, 1, 1, 1, 0, 0, True),
        (5, 3, 7, 31, 15, 0, True),  # fewer frames than taps
        (37, 2, 5, 8, 7, 0, False),  # causal, two blocks of frames
        (21, 2, 70, 5, 2, 4, True),  # two blocks of channels; the last chunk is not full
        (9, 2, 3, 7, 3, 16, True),  # a chunk longer than the sequence
    ],
)
def test_over_time(frames, batch, channels, taps, pad, chunk, bias, dtype, monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(frames, batch, channels).to(dtype), torch.randn(channels, 1, taps)
    check(
        lambda *a: depthwise.depthwise_conv1d(*a, pad, chunk),
        lambda *a, plain=depthwise.depthwise_conv1d_plain: plain(*a, pad, chunk),
        x,
        weight,
        torch.randn(channels) if bias else None,
        monkeypatch,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "shape,kernel,lens",
    [
        ((1, 1, 1, 1), (7, 7), None),
        ((2, 5, 5, 3), (7, 7), [5, 2]),
        ((2, 66, 3, 3), (3, 5), [0, 2]),
        ((3, 2, 6, 2), (7, 5), [6, 1, 5]),
    ],
)
def test_over_time_and_frequency(shape, kernel, lens, dtype, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
    channels = shape[1]
    lens = lens if lens is None else torch.tensor(lens)
    conv2d = depthwise._conv2d
    check(
        lambda *a: depthwise.depthwise_conv2d(*a, lens),
        lambda x, w, b: conv2d(depthwise.blank_tails(x, lens), w, b),
        x,
        torch.randn(channels, 1, *kernel),
        torch.randn(channels),
        monkeypatch,
    )
    y = depthwise.depthwise_conv2d(x, torch.randn(channels, 1, *kernel), torch.randn(channels), lens)
    assert y.is_contiguous(memory_format=torch.channels_last)

"""Fused CPU kernels against the plain torch formulas."""

import pytest
import torch
import torch.nn.functional as F

from asr_core.ops import activation_linear, balancer, depthwise, norm
from asr_core.ops.cpu import dispatch
from asr_core.ops.swoosh import swoosh_l, swoosh_r

pytestmark = pytest.mark.skipif(not dispatch.available(), reason="numba is not installed")


@pytest.mark.parametrize("function,offset,constant", [(swoosh_l, 4.0, 0.035), (swoosh_r, 1.0, 0.313261687)])
def test_swoosh_equals_the_formula_everywhere(function, offset, constant):
    x = torch.cat([torch.linspace(-120, 120, 40001), torch.randn(20000) * 5])
    exact = x.double().requires_grad_()
    expected = F.softplus(exact - offset) - 0.08 * exact - constant
    expected.sum().backward()
    fast = x.clone().requires_grad_()
    y = function(fast)
    y.sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=2e-7, atol=2e-6)
    torch.testing.assert_close(fast.grad.double(), exact.grad, rtol=0, atol=1e-6)


def test_swoosh_keeps_the_memory_format_and_takes_any_gradient_layout():
    x = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = swoosh_r(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 8, 5, 7)
    (got,) = torch.autograd.grad(y, x, grad)
    torch.testing.assert_close(got, grad * (torch.sigmoid(x.detach() - 1) - 0.08), rtol=1e-5, atol=1e-6)


def test_swoosh_passes_nan_on():
    assert swoosh_l(torch.tensor([0.0, float("nan"), 1.0])).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("taps,pad,chunk", [(7, 3, 0), (4, 3, 0), (7, 3, 5), (31, 15, 4), (5, 2, 100)])
def test_depthwise_conv1d_and_gradients(taps, pad, chunk):
    torch.manual_seed(0)
    x, w, b = torch.randn(23, 3, 20), torch.randn(20, 1, taps), torch.randn(20)
    grad = torch.randn(23, 3, 20)
    fast = [t.clone().requires_grad_() for t in (x, w, b)]
    slow = [t.double().requires_grad_() for t in (x, w, b)]
    y = depthwise.depthwise_conv1d(*fast, pad, chunk)
    expected = depthwise.depthwise_conv1d_plain(*slow, pad, chunk)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad(y, fast, grad), torch.autograd.grad(expected, slow, grad.double())
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


def test_plain_depthwise_conv1d_is_the_sum_it_claims():
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(9, 1, 2, dtype=torch.float64),
        torch.randn(2, 1, 3, dtype=torch.float64),
        torch.randn(2, dtype=torch.float64),
    )
    y = depthwise.depthwise_conv1d_plain(x, w, b, pad=2, chunk=4)
    for t in range(9):
        want = b.clone()
        for k in range(3):
            s = t + k - 2
            if s // 4 == t // 4 and 0 <= s < 9:
                want += w[:, 0, k] * x[s, 0]
        torch.testing.assert_close(y[t, 0], want)


def test_depthwise_conv2d_and_gradients():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 11, 6).contiguous(memory_format=torch.channels_last)
    w, b, grad = torch.randn(12, 1, 7, 5), torch.randn(12), torch.randn(2, 12, 11, 6)
    fast = [t.clone().requires_grad_() for t in (x, w, b)]
    slow = [t.double().requires_grad_() for t in (x, w, b)]
    y = depthwise.depthwise_conv2d(*fast)
    expected = F.conv2d(*slow, padding=(3, 2), groups=12)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad(y, fast, grad), torch.autograd.grad(expected, slow, grad.double())
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("frames, lens", [(11, [11, 9, 5]), (5, [5, 2, 1]), (8, [4, 0, 8])])
def test_depthwise_conv2d_takes_what_follows_the_lengths_for_zero(frames, lens):
    torch.manual_seed(0)
    x = torch.randn(3, 12, frames, 6).contiguous(memory_format=torch.channels_last)
    w, b, grad = torch.randn(12, 1, 7, 5), torch.randn(12), torch.randn(3, 12, frames, 6)
    fast = [t.clone().requires_grad_() for t in (x, w, b)]
    slow = [t.double().requires_grad_() for t in (x, w, b)]
    y = depthwise.depthwise_conv2d(*fast, torch.tensor(lens))
    within = (torch.arange(frames) < torch.tensor(lens).unsqueeze(1))[:, None, :, None]
    expected = F.conv2d(slow[0] * within, *slow[1:], padding=(3, 2), groups=12)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(depthwise.depthwise_conv2d(*fast, torch.tensor(lens)), y)
    for got, want in zip(
        torch.autograd.grad(y, fast, grad), torch.autograd.grad(expected, slow, grad.double())
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-5)


def test_kernels_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("ASR_CORE_CPU_KERNELS", "0")
    dispatch.available.cache_clear()
    try:
        assert not dispatch.usable(torch.zeros(1))
        torch.testing.assert_close(
            swoosh_l(torch.zeros(3)), torch.full((3,), F.softplus(torch.tensor(-4.0)).item() - 0.035)
        )
    finally:
        monkeypatch.undo()
        dispatch.available.cache_clear()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("activation", ["SwooshL", "SwooshR"])
def test_activation_linear_and_gradients(activation, masked):
    torch.manual_seed(0)
    x, w, b, grad = torch.randn(9, 3, 20), torch.randn(7, 20), torch.randn(7), torch.randn(9, 3, 7)
    mask = (torch.rand(1, 3, 20) > 0.3).float() / 0.7 if masked else None
    fast = [t.clone().requires_grad_() for t in (x, w, b)]
    slow = [t.double().requires_grad_() for t in (x, w, b)]
    y = activation_linear.activation_linear(*fast, activation, mask)
    inner = (swoosh_l if activation == "SwooshL" else swoosh_r)(slow[0])
    expected = F.linear(inner if mask is None else inner * mask, *slow[1:])
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad(y, fast, grad), torch.autograd.grad(expected, slow, grad.double())
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("rows", [3, 1300])
def test_bias_norm_and_gradients(rows):
    torch.manual_seed(0)
    x, bias, log_scale, grad = (
        torch.randn(rows, 2, 20),
        torch.randn(20),
        torch.tensor(0.7),
        torch.randn(rows, 2, 20),
    )
    fast = [t.clone().requires_grad_() for t in (x, bias, log_scale)]
    slow = [t.double().requires_grad_() for t in (x, bias, log_scale)]
    y, expected = norm.bias_norm(*fast), norm.bias_norm_plain(*slow)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    for got, want in zip(
        torch.autograd.grad(y, fast, grad), torch.autograd.grad(expected, slow, grad.double())
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channel_dim,channels_last", [(-1, False), (1, True)])
def test_balancer_kernels_equal_the_plain_form(channel_dim, channels_last):
    torch.manual_seed(0)
    x = torch.randn(5, 12, 9, 12) * torch.linspace(0.1, 9, 12).view(12, 1, 1) + 0.7
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    grad, bounds = torch.randn(5, 12, 9, 12), (-0.3, 0.3, 0.5, 2.0)
    got = balancer.apply_balancer(grad, x, bounds, 0.04, channel_dim)
    want = balancer.apply_balancer(grad.double(), x.double(), bounds, 0.04, channel_dim)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    assert (got - grad).abs().max() > 0.01

"""The gradients of balancers, whitening, bypasses and limits by Triton's kernels, in its
interpreter.
"""

import pytest
import torch
from kernel_checks import TOLERANCE, assert_close, gradients, random

from asr_core.ops import balancer, whiten
from asr_core.ops.bypass import interpolate
from asr_core.ops.gpu import balancer as kernels
from asr_core.ops.gpu import centring, limits, tiles
from asr_core.ops.limits import limit_value

BOUNDS = (-0.5, 0.5, 0.4, 3.0)


@pytest.fixture(autouse=True)
def no_other_kernels(monkeypatch):
    monkeypatch.setattr(balancer, "usable", lambda *_: pytest.fail("not Triton's kernel"))


def out_of_bounds(channels, dtype=torch.float32):
    """Samples (40, channels) of channels too small, too large, one-sided, and within bounds."""
    scale = torch.tensor([0.05, 0.3, 9.0, 1.0, 1.0, 9.0, 1.0]).repeat(channels)[:channels]
    shift = torch.tensor([0.0, 0.0, 0.0, 2.0, -2.0, -20.0, 0.0]).repeat(channels)[:channels]
    return (random(40, channels) * scale + shift).to(dtype)


def formula(x, grad, channel_dim):
    """The balancer in float64, by the coefficients' formula, which has a test of its own."""
    last = x.double().movedim(channel_dim, -1)
    rows = last.reshape(-1, last.shape[-1])
    a, b = balancer.balancer_coefficients(rows.mean(0), rows.square().mean(0), BOUNDS, 0.04)
    dy = grad.double().movedim(channel_dim, -1)
    return (dy + dy.abs() * (a + b * last)).movedim(-1, channel_dim)


def layouts(x):
    """The samples (40, C) in every layout: (x, axis of the channels)."""
    channels = x.shape[1]
    image = x.view(2, 4, 5, channels).permute(0, 3, 1, 2)  # channels innermost
    yield x, -1
    yield x.view(5, 8, channels), 2
    yield image, 1
    yield image.contiguous(), 1
    yield x.t().contiguous(), 0
    yield torch.cat([x, x], dim=1).view(4, 10, -1)[..., channels:], -1  # with gaps between rows
    yield x.view(4, 10, channels).transpose(0, 1), -1  # rows without a common stride
    yield x.view(4, 10, channels).permute(2, 1, 0), 0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [1, 7, 130])
def test_balancer(channels, dtype, monkeypatch):
    monkeypatch.setattr(tiles, "PROGRAMS", 3)
    monkeypatch.setattr(tiles, "TILE", 256 if channels < 100 else 2048)
    for x, channel_dim in layouts(out_of_bounds(channels, dtype)):
        grad = random(*x.shape, dtype=dtype, seed=1)
        got = balancer.apply_balancer(grad, x, BOUNDS, 0.04, channel_dim)
        assert got.dtype == dtype and got.shape == x.shape
        assert_close([got], [formula(x, grad, channel_dim)], dtype)
        moved = (got.double() - grad.double()).abs() > 0
        assert moved.any()


def test_gradients_keep_the_layout_of_activations():
    x = out_of_bounds(8).view(2, 4, 5, 8).permute(0, 3, 1, 2)
    assert balancer.apply_balancer(torch.randn_like(x), x, BOUNDS, 0.04, 1).stride() == x.stride()


def test_constant_and_zero_channels():
    x = torch.stack([torch.zeros(20), torch.full((20,), 3.0), torch.randn(20)], dim=1)
    got = balancer.apply_balancer(torch.ones(20, 3), x, BOUNDS, 0.04, -1)
    assert_close([got], [formula(x, torch.ones(20, 3), -1)], torch.float32)
    assert balancer.apply_balancer(torch.ones(0, 3), torch.ones(0, 3), BOUNDS, 0.04, -1).shape == (0, 3)


def test_long_batches_lose_no_digits():
    """The variance of a channel is a small difference of large sums."""
    x = random(4000, 2, shift=300.0)
    sums = kernels.row_sums(x).double().sum(0) / 4000
    exact = torch.stack([x.double().mean(0), x.double().square().mean(0)])
    torch.testing.assert_close(sums, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows,channels", [(1, 3), (37, 5), (9, 200)])
def test_centred_samples(rows, channels, dtype):
    x = random(rows, 2 * channels, dtype=dtype, shift=4.0)
    for part in (x[:, channels:], x.t().contiguous().t()):
        got = centring.centred(part)
        exact = part.double() - part.double().mean(0)
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_whitening(groups, monkeypatch):
    mix, grad = random(8, 8, seed=2), random(6, 5, 8, seed=1)
    x = random(6, 5, 8) @ mix + 1.5
    used = []
    monkeypatch.setattr(centring, "row_sums", lambda r: used.append(1) or kernels.row_sums(r))
    found = []
    for limit in (1.0, 1000.0):
        _, got = gradients(
            lambda x, m=limit: whiten.whiten_gradient(x, groups, m, 0.02, found.append), [x], grad
        )
        _, exact = gradients(
            lambda x, m=limit: whiten.whiten_gradient(x, groups, m, 0.02, found.append), [x.double()], grad
        )
        assert_close([got], [exact], torch.float32, grown=10.0)
    assert used and [bool(f) for f in found] == [True, True, False, False]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("per_sequence", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (19, 3, 5), (4, 2, 300)])
def test_bypass(shape, per_sequence, dtype, monkeypatch):
    monkeypatch.setattr(tiles, "PROGRAMS", 2)
    start, end = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    weight = random(*shape[1:] if per_sequence else shape[2:], scale=0.1, shift=0.5, seed=2)
    dy = random(*shape, dtype=dtype, seed=3)
    got = gradients(interpolate, [start, end, weight], dy)
    exact = gradients(torch.lerp, [t.double() for t in (start, end, weight)], dy)
    assert [t.dtype for t in got] == [dtype, dtype, dtype, torch.float32]
    assert_close(got[:3], exact[:3], dtype)
    assert_close(got[3:], exact[3:], torch.float32, grown=4.0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [0, 1, 1500])
def test_limits(size, dtype, monkeypatch):
    x, grad = random(size, dtype=dtype), random(size, dtype=dtype, seed=1)
    used = []
    monkeypatch.setattr(limits, "_BLOCK", 512)
    monkeypatch.setattr(
        limit_value.__globals__["gpu_kernels"],
        "turn_outward",
        lambda *a: used.append(1) or limits.turn_outward(*a),
    )
    _, got = gradients(lambda x: limit_value(x, -0.5, 0.25), [x], grad)
    outward = ((x < -0.5) & (grad > 0)) | ((x > 0.25) & (grad < 0))
    assert used and torch.equal(got, torch.where(outward, -grad, grad))

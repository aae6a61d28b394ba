"""Triton's kernels, in its interpreter, against the formulas in float64."""

import pytest
import torch
from kernel_checks import TOLERANCE, assert_close, gradients, random

from asr_core.ops import activation_linear, double_swish, slopes, swoosh
from asr_core.ops.gpu import activations, dispatch

SLOPES = {
    "SwooshL": (swoosh.swoosh_l, slopes.SWOOSH_SCALE),
    "SwooshR": (swoosh.swoosh_r, slopes.SWOOSH_SCALE),
    "DoubleSwish": (double_swish.double_swish, slopes.DOUBLE_SWISH_SCALE),
}


def plain(name, x):
    if name == "DoubleSwish":
        return double_swish.double_swish_plain(x)
    return swoosh.swoosh_plain(x, *swoosh.SWOOSH[name])


@pytest.fixture(autouse=True)
def no_other_kernels(monkeypatch):
    for module in (swoosh, double_swish, activation_linear):
        monkeypatch.setattr(module, "usable", lambda *_: pytest.fail("not Triton's kernel"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 1031)])
@pytest.mark.parametrize("name", SLOPES)
def test_activations_and_their_coded_slopes(name, shape, dtype):
    x, dy = random(*shape, dtype=dtype, scale=8.0), random(*shape, dtype=dtype, seed=1)
    function, (step, zero) = SLOPES[name]
    assert dispatch.usable(x)
    y, dx = gradients(function, [x], dy)
    want, exact = gradients(lambda x: plain(name, x), [x.double()], dy)
    assert y.dtype == dx.dtype == dtype
    assert_close([y], [want], dtype)
    if dtype == torch.float32:
        assert_close([dx], [exact], dtype)
        return
    # one code up or down
    assert ((dx.double() - exact).abs() <= dy.double().abs() * (step + TOLERANCE[dtype])).all()
    codes = slopes.encode((exact / dy.double()).float(), x, slopes.Scale(step, zero))
    coded = dy.double() * (codes.double() - zero) * step
    differ = (dx.double() - coded).abs() > TOLERANCE[dtype] * dy.double().abs() * 1.3
    assert differ.sum() <= max(1, 0.001 * x.numel())  # where rounding makes it the next code


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_kept_in_one_byte_and_right_on_average(name, dtype):
    x = torch.linspace(-12, 12, 4096).to(dtype).requires_grad_()
    function, scale = SLOPES[name]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = function(x)
    assert [(t.dtype, t.shape) for t in kept] == [(torch.uint8, x.shape)]
    slope = slopes.slope_backward(kept[0], torch.ones(4096), scale)
    _, exact = gradients(lambda x: plain(name, x), [x.double()], torch.ones(4096))
    error = ((slope.double() - exact) / scale.step).view(8, 512)
    assert error.abs().max() < 1 and error.std() > 0.1
    assert error.mean(dim=1).abs().max() < 5 * 0.5 / 512**0.5
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(dx, gradients(function, [x], torch.ones_like(x))[1])  # chance, but the same each time


@pytest.mark.parametrize("name", SLOPES)
def test_asymptotes_are_exact(name):
    ends = {"DoubleSwish": (0.0, 1.0)}.get(name, (-0.08, 0.92))
    x = torch.tensor([-80.0, 80.0], dtype=torch.float16).repeat_interleave(500)
    _, dx = gradients(SLOPES[name][0], [x], torch.ones_like(x))
    assert torch.equal(dx, torch.tensor(ends, dtype=torch.float16).repeat_interleave(500))


def test_without_gradients_nothing_is_kept():
    with torch.autograd.graph.saved_tensors_hooks(lambda t: pytest.fail("kept"), lambda t: t):
        for x in (torch.randn(5), torch.randn(5).half()):
            assert not swoosh.swoosh_l(x).requires_grad and not double_swish.double_swish(x).requires_grad


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradients_of_kept_inputs(dtype):
    x, dy = random(3, 9, dtype=dtype, scale=4.0), random(3, 9, dtype=dtype, seed=1)
    got = [activations.swoosh_backward(x, dy, 1.0), activations.double_swish_backward(x, dy)]
    exact = [gradients(lambda x, n=n: plain(n, x), [x.double()], dy)[1] for n in ("SwooshR", "DoubleSwish")]
    assert_close(got, exact, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "shape,masked", [((7, 3, 10), True), ((1, 3, 10), True), ((5, 1030), True), ((7, 300), False)]
)
@pytest.mark.parametrize("activation", swoosh.SWOOSH)
def test_activation_linear(activation, shape, masked, dtype):
    x = random(*shape, dtype=dtype, scale=4.0)
    weight, bias = random(6, shape[-1], dtype=dtype, scale=0.1, seed=1), random(6, dtype=dtype, seed=2)
    mask = None
    if masked:
        mask = (torch.rand(1, *shape[1:], generator=torch.Generator().manual_seed(3)) > 0.3).to(dtype) * 1.5
    dy = random(*shape[:-1], 6, dtype=dtype, seed=4)

    def formula(x, weight, bias):
        y = plain(activation, x)
        return torch.nn.functional.linear(y if mask is None else y * mask.double(), weight, bias)

    def function(x, weight, bias):
        return activation_linear.activation_linear(x, weight, bias, activation, mask)

    got = gradients(function, [x, weight, bias], dy)
    exact = gradients(formula, [t.double() for t in (x, weight, bias)], dy)
    assert all(t.dtype == dtype for t in got)
    assert_close(got, exact, dtype, grown=2.0)


def test_activation_linear_keeps_its_input_alone():
    x = torch.randn(4, 2, 8).requires_grad_()
    weight, mask, kept = torch.randn(3, 8), torch.ones(1, 2, 8), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        activation_linear.activation_linear(x, weight, None, "SwooshL", mask)
    assert sorted(kept) == sorted([x.shape, weight.shape, mask.shape])


def test_masks_that_change_along_the_first_axis(monkeypatch):
    monkeypatch.setattr(activation_linear, "usable", lambda *_: False)
    x, mask, weight = random(3, 4, scale=3.0), random(3, 4, seed=1), random(2, 4, seed=2)
    got = activation_linear.activation_linear(x, weight, None, "SwooshL", mask)
    torch.testing.assert_close(got, (plain("SwooshL", x) * mask) @ weight.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_under_autocast_are_those_of_a_linear_map(dtype):
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = activation_linear.activation_linear(x, weight, None, "SwooshR", torch.ones(1, 4))
        assert y.dtype == torch.nn.functional.linear(x, weight).dtype == dtype
        assert swoosh.swoosh_l(x).dtype == x.dtype and swoosh.swoosh_l(y).dtype == dtype
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32

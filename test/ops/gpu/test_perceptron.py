"""The perceptron of ConvNeXt blocks: its kernels, in Triton's interpreter, against the formula in
float64.
"""

import random as chance

import pytest
import torch
from kernel_checks import TOLERANCE, assert_close, random

from asr_core.nn.subsampling import ConvNeXt
from asr_core.ops import perceptron
from asr_core.ops.gpu import perceptron as kernels
from asr_core.ops.perceptron import Layers

BALANCE = [-0.1, 0.1, 0.5, 1.0, 0.3]  # bounds that many channels exceed, and a large scale


def arguments(n, c, t, f, hidden, dtype, kept=False):
    """x, y, the layers' parameters, and which sequences stay (or None)."""
    x, y = random(n, c, t, f, dtype=dtype), random(n, c, t, f, dtype=dtype, scale=2.0, seed=1)
    layers = (
        random(hidden, c, dtype=dtype, scale=3.0 / c**0.5, shift=0.1, seed=2),
        random(hidden, dtype=dtype, shift=2.0, seed=3),
        random(c, hidden, dtype=dtype, scale=hidden**-0.5, seed=4),
        random(c, dtype=dtype, seed=5),
    )
    keep = (torch.arange(n) % 2 == 0).to(dtype).view(n, 1, 1, 1) if kept else None
    return [x, y.to(memory_format=torch.channels_last), *layers], keep


def results(function, tensors, keep, balance, grad):
    tensors = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    y = function(*tensors[:2], Layers(*tensors[2:]), keep, balance)
    return [y.detach(), *torch.autograd.grad(y, tensors, grad.to(y.dtype))]


@pytest.fixture
def fused(monkeypatch):
    """Only kernels compute."""
    monkeypatch.setattr(perceptron.F, "linear", lambda *_: pytest.fail("not the kernel"))
    return perceptron.add_perceptron


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("balance", [[], BALANCE])
@pytest.mark.parametrize(
    "shape,hidden,kept",
    [
        ((1, 1, 1, 1), 1, False),
        ((2, 5, 3, 3), 15, True),
        ((3, 20, 5, 7), 37, True),  # two blocks of positions and of hidden units
        ((2, 16, 19, 7), 80, True),  # the same where rows are aligned, in half precision
        ((1, 48, 5, 7), 96, False),
    ],
)
def test_sum_and_gradients(shape, hidden, kept, balance, dtype, monkeypatch):
    tensors, keep = arguments(*shape, hidden, dtype, kept)
    grad = random(*shape, dtype=dtype, seed=6)
    exact = [t.double() for t in tensors]
    want = results(perceptron.add_perceptron_plain, exact, keep, balance, grad)
    monkeypatch.setattr(perceptron.F, "linear", None)
    got = results(perceptron.add_perceptron, tensors, keep, balance, grad)
    assert all(t.dtype == dtype for t in got)
    assert_close(got, want, dtype, grown=2.0)


def test_positions_are_shared_out_and_summed_in_one_order(monkeypatch):
    monkeypatch.setattr(kernels, "_PARTS", 3)
    tensors, keep = arguments(3, 6, 9, 5, 10, torch.float32, kept=True)  # six blocks of positions
    grad = random(3, 6, 9, 5, seed=6)
    want = results(perceptron.add_perceptron_plain, [t.double() for t in tensors], keep, BALANCE, grad)
    got, again = (results(perceptron.add_perceptron, tensors, keep, BALANCE, grad) for _ in range(2))
    assert_close(got, want, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(got, again))


def test_nothing_as_wide_as_the_hidden_units_is_kept():
    tensors, _ = arguments(2, 4, 5, 3, 12, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        perceptron.add_perceptron(*(t.requires_grad_() for t in tensors[:2]), Layers(*tensors[2:]))
    assert sorted(kept) == sorted(t.shape for t in tensors[1:5])


@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16])
def test_types_under_autocast(residual):
    tensors, keep = arguments(2, 5, 3, 3, 15, torch.float32, kept=True)
    tensors[0] = tensors[0].to(residual)
    grad = random(2, 5, 3, 3, seed=6)
    want = results(perceptron.add_perceptron_plain, [t.double() for t in tensors], keep, [], grad)
    with torch.autocast("cpu", torch.bfloat16):
        got = results(perceptron.add_perceptron, tensors, keep, [], grad)
    assert [t.dtype for t in got] == [residual, residual] + 5 * [torch.float32]
    assert_close(got, want, torch.bfloat16, grown=2.0)


def test_a_part_of_the_frames_is_added_to():
    tensors, _ = arguments(2, 5, 6, 3, 15, torch.float32)
    layers, y = Layers(*tensors[2:]), tensors[1][:, :, :4]
    for x in (tensors[0], tensors[0].to(memory_format=torch.channels_last)):
        got = perceptron.add_perceptron(x[:, :, 1:5], y, layers)
        want = perceptron.add_perceptron_plain(x[:, :, 1:5], y, layers, None, [])
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_widths_and_types_without_kernels(monkeypatch):
    monkeypatch.setattr(perceptron, "_WIDEST", 4)
    monkeypatch.setattr(perceptron._AddPerceptron, "apply", lambda *_: pytest.fail("a kernel"))
    tensors, _ = arguments(2, 5, 6, 3, 15, torch.float32)
    perceptron.add_perceptron(*tensors[:2], Layers(*tensors[2:]))
    tensors, _ = arguments(2, 4, 6, 3, 15, torch.float32)
    with pytest.raises(RuntimeError):  # as linear maps of two types do
        perceptron.add_perceptron(tensors[0], tensors[1].half(), Layers(*tensors[2:]))


def step(block, x, lens, seed):
    """A training step of a ConvNeXt block: result and gradients."""
    chance.seed(seed)
    torch.manual_seed(seed)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x, lens)
    drawn = chance.random(), torch.rand(1).item()
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])], drawn


@pytest.mark.parametrize("seed", range(4))
def test_a_training_step_of_a_block_is_that_without_kernels(seed, monkeypatch):
    torch.manual_seed(0)
    block = ConvNeXt(6, kernel_size=(3, 3), layerdrop_rate=0.4).train()
    x = torch.randn(4, 6, 7, 5).to(memory_format=torch.channels_last)
    lens, calls = torch.tensor([7, 3, 1, 5]), []  # the balancers act with probability 0.4
    apply = perceptron._AddPerceptron.apply
    monkeypatch.setattr(perceptron._AddPerceptron, "apply", lambda *a: calls.append(a) or apply(*a))
    got, drawn = step(block, x, lens, seed)
    monkeypatch.setattr(perceptron, "_has_kernels", lambda *_: False)
    want, drawn_without = step(block, x, lens, seed)
    assert len(calls) == 1 and drawn == drawn_without
    assert_close(got, [t.double() for t in want], torch.float32, grown=3.0)

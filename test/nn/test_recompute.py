"""Layers that are computed again do in the second pass what they did in the first."""

import random

import pytest
import torch

from asr_core.nn.recompute import Recomputed, once


class Noisy(torch.nn.Module):
    """Draws from both random sources, and counts its passes."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.passes = self.counted = 0

    def count(self):
        self.counted += 1
        return self.counted

    def forward(self, x, scale=1.0):
        self.passes += 1
        y = x * self.weight * random.random() * torch.rand(3) * once(self.count)
        return (y.square() * scale * once(self.count)).sum()


@pytest.mark.parametrize("keep_products", [False, True])
def test_the_second_pass_repeats_the_first(keep_products):
    plain, again = Noisy(), Noisy()
    again.forward = Recomputed(again.forward, keep_products)
    ends = []
    for module in (plain, again):
        random.seed(0)
        torch.manual_seed(0)
        first, second = module(torch.arange(3.0)), module(torch.ones(3), scale=2.0)
        random.random()
        (first + second).backward()
        ends.append((first.detach(), module.weight.grad, random.random(), torch.rand(1)))
    for a, b in zip(*ends):
        assert a == b if isinstance(a, float) else torch.equal(a, b)
    assert (plain.passes, again.passes) == (2, 4)
    assert plain.counted == again.counted == 4


def test_the_second_pass_can_be_repeated():
    module = Noisy()
    module.forward = Recomputed(module.forward, keep_products=False)
    loss = module(torch.ones(3))
    loss.backward(retain_graph=True)
    grad, module.weight.grad = module.weight.grad, None
    loss.backward()
    assert torch.equal(grad, module.weight.grad) and module.counted == 2


def test_nothing_is_kept_without_gradients():
    module = Noisy()
    module.forward = Recomputed(module.forward, keep_products=False)
    with torch.no_grad():
        module(torch.ones(3))
    assert module.passes == 1


def test_a_failing_second_pass_leaves_no_trace():
    module = Noisy()
    module.forward = Recomputed(module.forward, keep_products=False)
    loss = module(torch.ones(3))
    del module.weight
    with pytest.raises(AttributeError):
        loss.backward()
    module.counted = 0
    assert once(module.count) == 1

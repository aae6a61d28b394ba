"""Losses that are not finite make the gradients NaN, on all ranks, and nothing waits for them."""

import math

import pytest
import torch
from torch import nn

from asr_core.ops import rnnt_loss
from asr_core.training.forward_backward import _guarded
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.training.optim.stepper import Stepper


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [0.0, math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_has_no_finite_gradient(value, dtype):
    w = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    loss = _guarded((w * 3).sum() + value)  # its own gradient is 3, whatever the value
    loss.backward()
    assert loss.dtype == dtype
    if value == 0.0:
        assert loss.item() == 9.0 and w.grad.tolist() == [3.0, 3.0]
    else:
        assert w.grad.isnan().all() and not math.isfinite(loss.item())


@pytest.mark.parametrize("kind", [ScaledAdam, torch.optim.SGD])
@pytest.mark.parametrize("factor, scale", [(math.inf, 32.0), (1.0, 64.0)])
def test_the_loss_scale_is_not_to_blame_for_a_bad_loss(kind, factor, scale):
    """An overflow of gradients halves it."""
    model = nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    stepper = Stepper(kind(model.parameters(), lr=0.1), scaler)
    before = [p.detach().clone() for p in model.parameters()]
    loss = model(torch.ones(2)).sum() if math.isinf(factor) else model(torch.ones(2)).sum() + math.inf
    scaler.scale(_guarded(loss) * factor).backward()
    stepper.start()
    assert not stepper.settle(1, finite_loss=math.isinf(factor))
    assert stepper.scale == scale and stepper.scale_before == 64.0 and stepper.overflowed == (scale < 64.0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    model.zero_grad()
    scaler.scale(_guarded(model(torch.ones(2)).sum())).backward()
    assert stepper.step(2) and not torch.equal(model.bias, before[1])


@pytest.mark.parametrize("symbols", [[5], [5, 5], [5, 2]])
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("kind", ["simple", "pruned", "projected"])
def test_a_batch_of_impossible_utterances_has_no_finite_gradient(kind, backend, symbols):
    """The losses give such an utterance gradient 0, which must not hide that the step is bad."""
    torch.manual_seed(0)
    num, frames, size = len(symbols), 3, 7  # a path of this lattice has no more symbols than frames
    am, lm = torch.randn(num, frames, size, requires_grad=True), torch.randn(num, 6, size, requires_grad=True)
    labels = torch.randint(1, size, (num, 5))
    boundary = torch.tensor([[0, 0, n, frames] for n in symbols])
    common = dict(boundary=boundary, rnnt_type="modified", reduction="sum", backend=backend)
    if kind == "simple":
        loss = rnnt_loss.rnnt_loss_simple(lm, am, labels, 0, **common)
    elif kind == "pruned":
        ranges = torch.arange(6).expand(num, frames, 6).contiguous()
        logits = am.unsqueeze(2) + lm.unsqueeze(1)
        loss = rnnt_loss.rnnt_loss_pruned(logits, labels, ranges, 0, **common)
    else:
        weight, bias = torch.randn(size, size), torch.zeros(size)
        loss = rnnt_loss.rnnt_loss_projected(am, lm, weight, bias, labels, 0, **common)
    assert loss.isinf()
    _guarded(loss).backward()
    assert am.grad.isnan().any()

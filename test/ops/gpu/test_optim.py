"""The multi-tensor kernels of optimizers and averages, in Triton's interpreter."""

import copy

import pytest
import torch
from torch import nn

from asr_core.training.optim import averaging
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.training.optim.stacked_parameters import GpuPasses, TorchPasses

SHAPES = [(70, 60), (7,), (3, 1, 5), (3, 1, 5), ()]  # the first is more than one piece


def _train(steps, bad=(), dtype=torch.float32):
    """Return parameters and optimizer after some steps; those in ``bad`` have a gradient that is not finite."""
    torch.manual_seed(1)
    params = [nn.Parameter(torch.randn(s).to(dtype)) for s in SHAPES]
    optimizer = ScaledAdam(params, lr=0.02, clipping_scale=2.0, clipping_update_period=8)
    for step in range(steps):
        for i, p in enumerate(params):
            g = torch.randn(p.shape).to(dtype) * (20 if step % 7 == 6 else 1)
            p.grad = None if (i + step) % 4 == 0 else (g.t().contiguous().t() if g.dim() == 2 else g)
        if step in bad:
            params[2].grad = torch.full_like(params[2], float("inf"))
        optimizer.step()
    return params, optimizer


def _same_state(one, other):
    for a, b in zip(one["state"].values(), other["state"].values()):
        assert a.keys() == b.keys()
        for name, value in a.items():
            torch.testing.assert_close(value, b[name], rtol=1e-5, atol=1e-6, check_dtype=False, msg=name)


def test_scaled_adam_is_that_of_float64(monkeypatch):
    fast, optimizer = _train(13)
    assert isinstance(optimizer._groups[0].passes, GpuPasses)
    plain, expected = _train(13, dtype=torch.float64)
    assert isinstance(expected._groups[0].passes, TorchPasses)
    for a, b in zip(fast, plain):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    _same_state(optimizer.state_dict(), expected.state_dict())
    assert optimizer.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)


def test_a_bad_step_changes_nothing_and_nothing_waits_for_it(monkeypatch):
    waited = []
    settle = ScaledAdam._settle
    monkeypatch.setattr(ScaledAdam, "_settle", lambda self: (waited.append(1), settle(self)))
    params, optimizer = _train(10, bad=(3, 8, 9))
    assert len(waited) == 10 and optimizer._outcome is not None  # each at the start of the next step
    assert optimizer.skipped and optimizer.state[params[0]]["step"] == 7
    monkeypatch.setattr(GpuPasses, "fit", staticmethod(lambda stacks: False))
    plain, expected = _train(10, bad=(3, 8, 9))
    assert expected.skipped
    for a, b in zip(params, plain):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    _same_state(optimizer.state_dict(), expected.state_dict())


def test_it_continues_exactly_from_a_checkpoint():
    params, optimizer = _train(6, bad=(5,))
    again = [nn.Parameter(p.detach().clone()) for p in params]
    other = ScaledAdam(again, lr=0.02, clipping_scale=2.0, clipping_update_period=8)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        for p, q in zip(params, again):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        other.step()
    assert all(torch.equal(p, q) for p, q in zip(params, again))


def test_gradients_of_a_scaled_loss():
    """GradScaler need not have unscaled the gradients."""
    results = []
    for scale in (None, 8.0):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(()))]
        optimizer = ScaledAdam(params, lr=0.02, clipping_scale=2.0)
        for _ in range(12):
            for p in params:
                p.grad = torch.randn_like(p) * (scale or 1.0)
            optimizer.grad_scale = None if scale is None else torch.tensor(scale)
            optimizer.step()
        results.append([*params, torch.tensor(optimizer.grad_norm)])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_means_move_as_by_tensor_operations(monkeypatch, weight):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(70, 60), nn.BatchNorm1d(3), nn.Linear(2, 2).double()])
    means = []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(averaging, "_fits_kernel", lambda *_: False)
        mean = ModelAverage(copy.deepcopy(model), period=1)
        assert len(mean._pairs) == (2 if kernels else len(mean._current))  # those that are float64
        for step, p in enumerate(mean._current):
            p.add_(0.1 * step + 1e-9)
        mean._move(weight)
        means.append(mean.state_dict())
    for name, value in means[1].items():
        torch.testing.assert_close(means[0][name], value, rtol=1e-15, atol=1e-15)

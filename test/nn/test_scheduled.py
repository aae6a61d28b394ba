"""Schedules, their default, and the Python-side state of modules."""

import pytest
import torch
from torch import nn

from asr_core.nn.scaling import (
    BiasNorm,
    Dropout3,
    ScaledConv2d,
    ScaledLinear,
    ScheduledFloat,
    Whiten,
    load_training_state,
    set_batch_count,
    training_state,
    whitening_limit,
)


def test_piecewise_linear():
    s = ScheduledFloat((10.0, 1.0), (20.0, 3.0), (40.0, 2.0), default=0.5)
    assert [s.at(c) for c in (0, 10, 15, 20, 30, 40, 99)] == [1.0, 1.0, 2.0, 3.0, 2.5, 2.0, 2.0]
    with pytest.raises(ValueError):
        ScheduledFloat((10.0, 1.0), (10.0, 2.0))


def test_default_outside_training_and_before_the_first_count():
    model = nn.Sequential(Dropout3(ScheduledFloat((0.0, 0.4), (100.0, 0.2)), shared_dim=0))
    s = model[0].p
    assert float(s) == 0.0
    set_batch_count(model, 50)
    assert float(s) == pytest.approx(0.3)
    model.eval()
    assert float(s) == 0.0
    model.train()
    assert float(s) == pytest.approx(0.3)


def test_whitening_limit():
    limit = whitening_limit(5.0, ratio=3.0)
    assert (float(limit), limit.at(0), limit.at(10000), limit.at(1e9)) == (5.0, 5.0, 10.0, 15.0)


def test_training_state_round_trip():
    def build():
        return nn.Sequential(
            *[Whiten(1, whitening_limit=1.5, prob=(0.1, 0.5), grad_scale=0.1) for _ in range(2)]
        )

    one, other = build(), build()
    one[1].prob = 0.1
    load_training_state(other, training_state(one))
    assert [m.prob for m in other] == [0.5, 0.1]


def test_dropout_mask_is_shared():
    torch.manual_seed(0)
    dropout = Dropout3(0.25, shared_dim=1)
    y = dropout(torch.ones(30, 7, 40))
    assert (y == y[:, :1]).all()
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs((y == 0).float().mean().item() - 0.25) < 0.06
    assert torch.equal(dropout.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def test_initial_scales():
    torch.manual_seed(0)
    linear, plain = ScaledLinear(400, 300, initial_scale=0.05), nn.Linear(400, 300)
    assert linear.weight.std().item() == pytest.approx(0.05 * plain.weight.std().item(), rel=0.05)
    assert linear.bias.abs().max() <= 0.005 and linear.bias.std() > 0
    conv = ScaledConv2d(384, 128, 1, initial_scale=0.01)
    assert conv.weight.abs().max() <= 0.01 / 384**0.5 + 1e-6
    assert ScaledLinear(4, 4, bias=False).bias is None


def test_bias_norm_keeps_its_log_scale_within_limits():
    torch.manual_seed(0)
    norm = BiasNorm(8)
    assert norm.log_scale.item() == 1.0 and norm.bias.abs().max() < 1e-3
    optimizer = torch.optim.SGD([norm.log_scale], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        (-norm(torch.randn(4, 8)).square().mean().log()).backward()  # always wants a larger scale
        optimizer.step()
    assert 1.4 < norm.log_scale.item() < 2.0

"""Hooks that find where numbers stop being finite."""

import logging

import fake_run
import torch
from fake_run import records
from torch import nn

from asr_core.training.checkpoint import read_whole
from asr_core.training.health.inf_check import InfCheck


class Poison(nn.Module):
    """Turns a number, or its gradient, into infinity."""

    def __init__(self, forward=False, backward=False):
        super().__init__()
        self.poison = forward, backward

    def forward(self, x):
        if self.poison[1] and x.requires_grad:
            x = x * 1.0
            x.register_hook(lambda grad: grad / 0.0)
        return x / 0.0 if self.poison[0] else x * 1.0


class Halves(nn.Module):
    """Two outputs of one function."""

    def forward(self, x):
        return x.chunk(2, dim=-1)


def test_an_output_that_nobody_uses_has_no_gradient_to_check():
    layer, halves = nn.Linear(2, 4), Halves()
    check = InfCheck(nn.ModuleList([layer, halves]))
    halves(layer(torch.randn(3, 2)))[1].sum().backward()
    assert check.found == {}


def test_the_first_module_is_named(caplog):
    model = nn.Sequential(nn.Linear(2, 2), Poison(forward=True), nn.ReLU(), nn.Linear(2, 2))
    check = InfCheck(model)
    model(torch.randn(3, 2))
    assert check.found == {"output": "1"} and "the first output that is not finite: 1" in caplog.text
    check.new_step()
    model[1].poison = False, False
    model(torch.full((3, 2), float("nan")))
    assert check.found == {"output": "0, whose input was not finite already"}
    check.new_step()
    model[1].poison = False, True
    model(torch.randn(3, 2)).sum().backward()
    assert check.found.pop("parameter gradient") in ("0.bias", "0.weight")
    assert check.found == {"gradient": "0"}  # that of the output of module 0
    check.remove()
    check.new_step()
    model(torch.full((3, 2), float("nan"))).sum().backward()
    assert not check.found


def test_the_check_changes_nothing_and_speaks_in_a_run(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert fake_run.run(tmp_path / "with", num_epochs=1, inf_check=True, bad_steps=(4,)) == 0
    assert "the first output that is not finite: encoder.0, whose input was not finite already" in caplog.text
    assert fake_run.run(tmp_path / "without", num_epochs=1, bad_steps=(4,)) == 0
    assert records(tmp_path / "with") == records(tmp_path / "without")
    a, b = (read_whole(tmp_path / d / "epoch-1.pt")["model"] for d in ("with", "without"))
    assert all(torch.equal(a[name], b[name]) for name in b)

"""Statistics that are asked for, and hooks that find where numbers stop being finite."""

import logging

import fake_run
import numpy as np
import torch
from fake_run import records
from torch import nn

from asr_core.training.checkpoint import read_whole
from asr_core.training.health.diagnostics import AxisStats, Diagnostics
from asr_core.training.health.inf_check import InfCheck


def test_statistics_of_an_axis():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6)) * [1, 2, 3, 4, 5, 6] + 0.5
    stats = AxisStats(6)
    for part in np.split(x, [10, 30]):
        stats.add(torch.tensor(part))
    got = {name: values.numpy() for name, values in stats.values().items()}
    expected = {
        "abs": abs(x).mean(0), "max": x.max(0), "min": x.min(0), "positive": (x > 0).mean(0), "value": x.mean(0),
        "rms": np.sqrt((x * x).mean(0)), "eigs": np.sqrt(np.linalg.eigvalsh(x.T @ x / 50)),
    }  # fmt: skip
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, err_msg=name)


def test_axes_that_change_and_large_ones():
    model = nn.Sequential(nn.Linear(3, 600))
    diagnostics = Diagnostics(model)
    for frames in (4, 5):
        model(torch.randn(2, frames, 3)).sum().backward()
    text = diagnostics.text()
    assert "0.output, axis 0 of 3, size 2," in text and "axis 1 of 3" not in text
    wide = [line for line in text.splitlines() if line.startswith("0.output, axis 2 of 3, size 600")]
    assert len(wide) == 6 and not any("eigs" in line for line in wide)


def test_the_run_prints_statistics_and_stops(tmp_path, capsys):
    assert fake_run.run(tmp_path / "a", max_steps=5) == 0
    assert fake_run.run(tmp_path / "a", print_diagnostics=True) == 0
    assert fake_run.run(tmp_path / "new", print_diagnostics=True) == 0
    text = (tmp_path / "new" / "diagnostics.txt").read_text()
    assert text in capsys.readouterr().out
    names = [line.split(",")[0] for line in text.splitlines()]
    assert names == sorted(names)
    for name in (
        "encoder.0.output",
        "encoder.0.grad",
        "out.weight.param_value",
        "out.weight.param_grad",
        "encoder.output",
    ):
        assert name in names
    first = next(line for line in text.splitlines() if line.startswith("out.weight.param_value, axis 1"))
    assert first.startswith("out.weight.param_value, axis 1 of 2, size 16, abs percentiles: [")
    assert not list((tmp_path / "new").glob("*.pt")) and not (tmp_path / "new" / "metrics.jsonl").exists()
    assert fake_run.run(tmp_path / "a", max_steps=8) == 0  # the run itself is untouched
    assert fake_run.run(tmp_path / "whole", max_steps=8) == 0
    assert records(tmp_path / "a") == records(tmp_path / "whole")


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

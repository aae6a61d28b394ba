"""Statistics of activations, gradients and parameters."""

import fake_run
import numpy as np
import torch
from fake_run import records
from torch import nn

from asr_core.training.health.diagnostics import AxisStats, Diagnostics


def test_statistics_of_an_axis():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6)) * [1, 2, 3, 4, 5, 6] + 0.5
    stats = AxisStats(6)
    for part in np.split(x, [10, 30]):
        stats.add(torch.tensor(part))
    got = {name: values.numpy() for name, values in stats.values().items()}
    expected = {
        "abs": abs(x).mean(0),
        "max": x.max(0),
        "min": x.min(0),
        "positive": (x > 0).mean(0),
        "value": x.mean(0),
        "rms": np.sqrt((x * x).mean(0)),
        "eigs": np.sqrt(np.linalg.eigvalsh(x.T @ x / 50)),
    }
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, err_msg=name)


class Halves(nn.Module):
    """Two outputs of one function."""

    def forward(self, x):
        return x.chunk(2, dim=-1)


def test_an_output_that_nobody_uses_has_no_statistics_of_gradients():
    layer, halves = nn.Linear(2, 4), Halves()
    diagnostics = Diagnostics(nn.ModuleList([layer, halves]))
    halves(layer(torch.randn(3, 2)))[1].sum().backward()
    text = diagnostics.text()
    assert "1[1].grad, axis" in text and "1[0].grad, axis" not in text and "1[0].output, axis" in text


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

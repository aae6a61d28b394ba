"""ScaledAdam and Eden against the reference's numbers and against a plain formulation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asr_core.ops.cpu.dispatch import available
from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs
from asr_core.training.optim.stacked_parameters import CpuPasses
from asr_core.training.schedule import Eden, Eden2, Warmup

GOLDEN = Path(__file__).parents[2] / "golden" / "scaled_adam_seed0.npz"
NAMES = ("w", "w2", "b", "log_scale")


def _golden_params(golden):
    return {n: nn.Parameter(torch.from_numpy(np.array(golden[f"init/{n}"]))) for n in NAMES}


@pytest.mark.parametrize("passes", ["torch", "kernels"])
def test_scaled_adam_follows_the_reference_for_250_steps(monkeypatch, passes):
    if passes == "torch":
        monkeypatch.setattr(CpuPasses, "fit", staticmethod(lambda stacks: False))
    elif not available():
        pytest.skip("no numba")
    golden = np.load(GOLDEN)
    params = _golden_params(golden)
    optimizer = ScaledAdam([{"named_params": list(params.items())}], lr=0.045, clipping_scale=2.0)
    scheduler = Eden(optimizer, 7500, 3.5)
    checked = 0
    for i in range(250):
        for n, p in params.items():
            p.grad = torch.from_numpy(np.array(golden[f"grads/{n}"][i]))
        optimizer.step()
        scheduler.step_batch(i)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            float(golden["lr_used_after_step"][i]), rel=1e-6
        )
        for n, p in params.items():
            if f"step{i + 1}/{n}" in golden:
                np.testing.assert_allclose(
                    p.detach().numpy(), golden[f"step{i + 1}/{n}"], rtol=1e-4, atol=1e-6
                )
                checked += 1
    assert checked == 7 * len(NAMES)


def test_state_dict_has_the_reference_layout_and_continues_exactly(tmp_path):
    golden = np.load(GOLDEN)

    def run(first, last, params, optimizer):
        for i in range(first, last):
            for n, p in params.items():
                p.grad = torch.from_numpy(np.array(golden[f"grads/{n}"][i]))
            optimizer.step()

    a = _golden_params(golden)
    optimizer = ScaledAdam([{"named_params": list(a.items())}], lr=0.045, clipping_scale=2.0)
    run(0, 57, a, optimizer)
    torch.save(
        {"params": {n: p.data for n, p in a.items()}, "optimizer": optimizer.state_dict()}, tmp_path / "c.pt"
    )
    run(57, 120, a, optimizer)

    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    state = saved["optimizer"]["state"]
    assert sorted(state) == [
        0,
        2,
        3,
    ]  # first of each shape, in the order of the parameters: w (and w2), b, log_scale
    assert state[0]["exp_avg_sq"].shape == (2, 7, 5) and state[0]["param_rms"].shape == (2, 1, 1)
    assert state[0]["scale_grads"].shape == (4, 2, 1, 1) and state[3]["delta"].shape == (1,)
    assert "model_norms" in state[3] and "param_rms" not in state[3]  # the scalars' key sorts first
    assert set(saved["optimizer"]["param_groups"][0]) >= {
        "lr",
        "clipping_scale",
        "betas",
        "scalar_lr_scale",
        "eps",
        "params",
    }

    b = {n: nn.Parameter(p) for n, p in saved["params"].items()}
    again = ScaledAdam([{"named_params": list(b.items())}], lr=0.045, clipping_scale=2.0)
    again.load_state_dict(saved["optimizer"])
    run(57, 120, b, again)
    for n in NAMES:
        assert torch.equal(a[n], b[n])


@pytest.mark.skipif(not available(), reason="no numba")
def test_kernels_and_tensor_operations_agree(monkeypatch):
    shapes = [
        (150, 130),
        (150, 130),
        (7,),
        (1,),
        (3, 1, 5),
        (3, 1, 5),
        (40000,),
    ]  # more than one piece; parameters without gradient

    def run(steps=9):
        torch.manual_seed(1)
        params = [nn.Parameter(torch.randn(s)) for s in shapes]
        optimizer = ScaledAdam(params, lr=0.02, clipping_scale=2.0)
        for step in range(steps):
            for i, p in enumerate(params):
                g = torch.randn(p.shape)
                p.grad = None if (i + step) % 5 == 0 else (g.t().contiguous().t() if g.dim() == 2 else g)
            optimizer.step()
        return params

    fast = run()
    monkeypatch.setattr(CpuPasses, "fit", staticmethod(lambda stacks: False))
    for a, b in zip(fast, run()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_non_finite_gradients_change_nothing():
    torch.manual_seed(0)
    w, s = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.tensor(0.5))
    optimizer = ScaledAdam([w, s], lr=0.01, clipping_scale=2.0)
    for bad in (float("nan"), float("inf")):
        before = w.detach().clone(), s.detach().clone()
        w.grad, s.grad = torch.full_like(w, bad), torch.tensor(1.0)
        optimizer.step()
        assert optimizer.skipped and torch.equal(w, before[0]) and torch.equal(s, before[1])
        w.grad = torch.randn(4, 3)
        optimizer.step()
        assert not optimizer.skipped and not torch.equal(w, before[0])


def test_missing_gradients_count_as_zero_and_plain_parameters_are_taken():
    w, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    optimizer = ScaledAdam([w, unused], lr=0.1)
    w.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3, 3)) and (w < 1).all()


def test_sizes_and_scalars_stay_bounded():
    w, s = nn.Parameter(torch.full((4,), 2.9)), nn.Parameter(torch.tensor(9.9))
    optimizer = ScaledAdam([w, s], lr=0.5)
    for _ in range(100):
        w.grad, s.grad = torch.full((4,), -1.0), torch.tensor(-1.0)
        optimizer.step()
    assert s.item() == 10.0
    assert not torch.isnan(w).any()


def test_parameter_groups_follow_lr_scale():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    model[1].lr_scale = 0.5
    model[1][0].lr_scale = 0.5
    groups = get_parameter_groups_with_lrs(model, lr=0.04, include_names=True, freeze_modules=["2"])
    got = {g["lr"]: [n for n, _ in g["named_params"]] for g in groups}
    assert got == {0.04: ["0.weight", "0.bias"], 0.01: ["1.0.weight", "1.0.bias"]}
    assert len(ScaledAdam(groups, lr=0.04).param_groups) == 2


def test_eden_values_of_the_reference():
    optimizer = ScaledAdam([nn.Parameter(torch.ones(2))], lr=0.045)
    scheduler = Eden(optimizer, lr_batches=7500, lr_epochs=3.5, warmup=Warmup(start=0.1))
    for batch, epoch, lr in [
        (0, 0, 0.0045),
        (250, 0, 0.0247431),
        (500, 0, 0.0449501),
        (7500, 1, 0.0371052),
        (150000, 29, 0.0034809),
    ]:
        scheduler.step_epoch(epoch)
        scheduler.step_batch(batch)
        assert scheduler.get_lr()[0] == pytest.approx(lr, rel=1e-5)
    default = Eden(ScaledAdam([nn.Parameter(torch.ones(2))], lr=0.045), 7500, 3.5)
    for batch, epoch, lr in np.load(GOLDEN)["eden_batch_epoch_lr"]:
        default.step_epoch(int(epoch))
        default.step_batch(int(batch))
        assert default.get_last_lr()[0] == pytest.approx(lr, rel=1e-6)
    again = Eden(ScaledAdam([nn.Parameter(torch.ones(2))], lr=0.09), 7500, 3.5, warmup=Warmup(start=0.1))
    again.load_state_dict(scheduler.state_dict())
    assert again.get_last_lr()[0] == pytest.approx(
        2 * 0.0034809, rel=1e-5
    )  # base_lr is not part of the state


def test_eden2():
    scheduler = Eden2(ScaledAdam([nn.Parameter(torch.ones(2))], lr=1.0), lr_batches=100, warmup=Warmup(10))
    scheduler.step_batch(0)
    assert scheduler.get_last_lr() == [0.5]
    scheduler.step_batch(100)
    assert scheduler.get_last_lr()[0] == pytest.approx(2**-0.5)

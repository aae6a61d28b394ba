"""Training in float16 and bfloat16."""

import fake_run
import pytest
import torch
from tiny_program import ZipformerRecipe

from asr_core.training import setup
from asr_core.training.checkpoint import read_whole
from asr_core.training.optim.stepper import Stepper
from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.errors import UserError


def test_an_overflow_with_a_high_scale_is_no_reason_to_worry():
    p = torch.nn.Linear(1, 1, bias=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    stepper = Stepper(torch.optim.SGD(p.parameters(), lr=1.0), scaler)
    before = p.weight.clone()
    scaler.scale(p.weight.sum() * float("inf")).backward()
    assert (
        not stepper.step(1)
        and stepper.overflowed
        and stepper.scale == 512.0
        and torch.equal(p.weight, before)
    )
    p.weight.grad = None
    scaler.scale(p.weight.sum() * 2).backward()
    assert stepper.step(2) and not stepper.overflowed and stepper.grad_norm == pytest.approx(2.0)
    torch.testing.assert_close(p.weight, before - 2.0)


class Overflowing(fake_run.FakeRecipe):
    """From the 14th step on, gradients are not finite; before, float16 trains."""

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        out = super().compute_loss(model, batch, batch_idx_train, reduction)
        if 14 <= batch_idx_train < 32 and out.loss.requires_grad and reduction == "sum":
            out.loss.register_hook(lambda grad: grad * float("inf"))
        return out


def test_a_collapsing_loss_scale_ends_the_run_with_advice_or_is_recovered_from(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(setup, "autocast_dtype", lambda opts, device: torch.float16)
    options = dict(recipe=Overflowing, use_fp16=True, max_bad_batches=100, reset_interval=50)
    with pytest.raises(
        UserError,
        match="the loss scale of float16 fell to .*doubled every 25 steps.*lower --base-lr .*0.005"
        ".*--use-bf16 1",
    ):
        fake_run.run(tmp_path / "a", **options)
    assert read_whole(tmp_path / "a" / "bad-model-0.pt")["grad_scaler"]["scale"] < 1e-5
    assert fake_run.run(tmp_path / "b", auto_recover=True, **options) == 0
    got = read_metrics(tmp_path / "b" / "metrics.jsonl")
    assert [r["type"] for r in got].count(
        "recovery"
    ) == 1 and "back to the average over batches" in caplog.text
    assert [r["grad_scale"] for r in got if r["type"] == "train"][-1] == 1.0
    assert [r["what"] for r in got if r["type"] == "bad"] == ["gradient"] * 18


def test_bfloat16_trains_on_the_cpu(tmp_path):
    assert (
        fake_run.run(tmp_path, recipe=ZipformerRecipe, use_bf16=True, num_epochs=1, warmup_batches=1.0) == 0
    )
    losses = [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "train"]
    assert len(losses) == 12 and sum(losses[-4:]) < sum(losses[:4])


def test_float16_is_refused_on_the_cpu(tmp_path):
    with pytest.raises(UserError, match="needs a CUDA device for float16, and this run is on the cpu"):
        fake_run.run(tmp_path, use_fp16=True)

"""Training that fails: how it is noticed, and how a run goes back to good weights."""

import logging

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.models.averaging import average_of_range
from asr_core.training.checkpoint import read_whole
from asr_core.training.health.recovery import DivergenceMonitor
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.writers import read_metrics
from asr_core.training.state import TrainState
from asr_core.utils.errors import UserError

TROUBLE = dict(bad_steps=(13, 14, 15), max_bad_batches=3, average_period=1)


def test_too_many_bad_batches_in_a_row_stop_the_run(tmp_path):
    with pytest.raises(
        UserError,
        match="3 batches in a row had a loss that is not finite, .* cut-1-5-1 at batch 6.* lower --base-lr",
    ):
        fake_run.run(tmp_path, bad_steps=(2, 4, 5, 6), max_bad_batches=3)


def test_without_auto_recover_the_state_is_kept_and_the_same_command_starts_before_the_trouble(
    tmp_path, caplog
):
    with pytest.raises(
        UserError,
        match="3 batches in a row.*batch 15.*3 bad batches were skipped.*bad-model-0.pt.*--auto-recover 1",
    ):
        fake_run.run(tmp_path, **TROUBLE)
    assert read_whole(tmp_path / "bad-model-0.pt")["batch_idx_train"] == 15
    caplog.set_level(logging.INFO)
    assert fake_run.run(tmp_path, **{**TROUBLE, "bad_steps": ()}) == 0
    assert f"Continuing from {tmp_path / 'epoch-1.pt'}" in caplog.text


def test_it_goes_back_to_the_last_good_average_with_a_lower_rate(tmp_path, caplog):
    assert fake_run.run(tmp_path, auto_recover=True, ema_decay=0.9, **TROUBLE) == 0
    assert "Recovery 1 of 3: back to the average over batches 10 to 12" in caplog.text
    at = {n: read_whole(tmp_path / f"checkpoint-{n}.pt") for n in (10, 15, 20)}
    epoch = read_whole(tmp_path / "epoch-1.pt")
    expected = average_of_range(at[10], epoch)
    assert all(torch.equal(at[15]["model"][name], value) for name, value in expected.items())
    assert (
        all(torch.equal(at[15]["model_ema"][name], value.double()) for name, value in expected.items())
        and at[15]["ema_updates"] == 0
    )
    for name, value in at[15]["model_avg"].items():
        if value.is_floating_point():  # as if the model had stood there since batch 12
            torch.testing.assert_close(
                value, (12 * epoch["model_avg"][name] + 3 * expected[name].double()) / 15
            )
    rates = {
        r["batch_idx_train"]: r["lr"]
        for r in read_metrics(tmp_path / "metrics.jsonl")
        if r["type"] == "train"
    }
    other = tmp_path / "undisturbed"
    assert fake_run.run(other) == 0
    usual = {
        r["batch_idx_train"]: r["lr"] for r in read_metrics(other / "metrics.jsonl") if r["type"] == "train"
    }
    assert (
        rates[12] == usual[12]
        and rates[16] == pytest.approx(0.7 * usual[16])
        and rates[36] == pytest.approx(0.7 * usual[36])
    )
    back = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "recovery"]
    assert [(r["batch_idx_train"], r["recoveries"]) for r in back] == [(15, 1)]


def test_the_lower_rate_survives_resuming(tmp_path):
    assert fake_run.run(tmp_path / "whole", auto_recover=True, **TROUBLE) == 0
    for stop in (14, 15, 18, 0):
        assert fake_run.run(tmp_path / "parts", auto_recover=True, max_steps=stop, **TROUBLE) == 0
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    a, b = (read_whole(tmp_path / d / "epoch-3.pt") for d in ("parts", "whole"))
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in b["model"])
    assert a["train_state"]["lr_factor"] == 0.7 and a["train_state"]["bad_spans"] == [[12, 15]]


def test_before_the_first_checkpoint_it_goes_back_to_the_running_average(tmp_path, caplog):
    options = dict(auto_recover=True, bad_steps=(2, 3), max_bad_batches=2, average_period=1, num_epochs=1)
    assert fake_run.run(tmp_path, **options) == 0
    assert "back to the running average of all steps" in caplog.text


def test_damaged_and_spoilt_checkpoints_are_passed_over(tmp_path, caplog):
    options = dict(auto_recover=True, max_bad_batches=2, average_period=1)
    assert fake_run.run(tmp_path, bad_steps=(), max_steps=13, **options) == 0
    (tmp_path / "epoch-1.pt").write_bytes(b"half")
    content = read_whole(tmp_path / "checkpoint-10.pt")
    content["model"]["out.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "checkpoint-10.pt")
    assert fake_run.run(tmp_path, bad_steps=(14, 15), **options) == 0
    assert (
        "epoch-1.pt is damaged" in caplog.text and "back to the average over batches 5 to 13" in caplog.text
    )


def test_it_gives_up_after_so_many_recoveries(tmp_path):
    bad = {"bad_steps": range(6, 30), "max_bad_batches": 2, "auto_recover": True, "max_recoveries": 2}
    with pytest.raises(UserError, match="the run went back 2 times and had come to 0.25 times --base-lr"):
        fake_run.run(tmp_path, recover_lr_factor=0.5, **bad)
    assert (tmp_path / "bad-model-0.pt").is_file()


def test_a_diverging_loss_is_noticed(tmp_path, caplog):
    class Diverging(fake_run.FakeRecipe):
        def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
            out = super().compute_loss(model, batch, batch_idx_train, reduction)
            return out._replace(loss=out.loss * (100.0 if 14 <= batch_idx_train < 20 else 1.0))

    with pytest.raises(UserError, match="the loss diverges: for 5 steps it was above .* at batch 18"):
        fake_run.run(tmp_path / "a", recipe=Diverging)
    assert fake_run.run(tmp_path / "b", recipe=Diverging, divergence_factor=0.0) == 0
    assert fake_run.run(tmp_path / "c", recipe=Diverging, auto_recover=True) == 0
    assert "back to the average over batches 10 to 12" in caplog.text


def test_what_counts_as_divergence():
    def steps_until_trouble(losses, **options):
        monitor = DivergenceMonitor(LoopOptions(reset_interval=10, **options), TrainState())
        return next((n for n, loss in enumerate(losses, 1) if monitor.check(loss, 1.0, "")), None)

    assert steps_until_trouble([1.0] * 20 + [5.0] * 9 + [1.0] * 20) is None  # not for long enough
    assert steps_until_trouble([1.0] * 20 + [5.0] * 20) == 30
    assert steps_until_trouble([1.0] * 20 + [2.9] * 50) is None
    assert steps_until_trouble([1.0] * 20 + [2.9] * 50, divergence_factor=2.0) == 30
    assert steps_until_trouble([0.001] * 20 + [0.1] * 50) is None  # losses that are nearly zero may grow
    assert steps_until_trouble([1.0] * 20 + [float("nan")] * 50) is None  # another trouble


def test_a_low_loss_scale_is_noticed():
    monitor = DivergenceMonitor(LoopOptions(reset_interval=5), TrainState())
    assert [bool(monitor.check(1.0, 0.005, "")) for _ in range(5)] == [False] * 4 + [True]
    assert monitor.check(1.0, 1.0, "") is None and monitor.state.low_scale_steps == 0
    assert "fell to 5.0e-06" in monitor.check(1.0, 5e-6, "").what

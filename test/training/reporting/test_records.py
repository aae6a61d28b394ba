"""Records of a run, for each kind of reader."""

import math
from types import SimpleNamespace

import fake_run
import pytest
import torch

from asr_core.training.metrics import MetricsTracker
from asr_core.training.options import LoopOptions
from asr_core.training.reporting import records
from asr_core.training.reporting.records import RunLogger, StepRecord
from asr_core.training.reporting.writers import read_metrics
from asr_core.training.state import TrainState
from asr_core.training.task import Measurement
from asr_core.utils.errors import UserError

TASK = SimpleNamespace(unit="tokens", rate_name="tokens_per_second")


@pytest.fixture
def state():
    return TrainState(
        epoch=2, batches_done=5, batch_idx_train=17, tot_loss=MetricsTracker(frames=10.0, loss=30.0)
    )


def logger(folder, state, is_main=True):
    opts = LoopOptions(exp_dir=str(folder), tensorboard=False)
    return RunLogger(opts, state, is_main, torch.device("cpu"), TASK)


def step(**changes):
    values = dict(
        info=MetricsTracker(frames=4.0, loss=8.0, ctc_loss=2.0),
        index=4,
        utterances=3,
        lr=0.01,
        loss_scale=None,
        grad_norm=1.5,
        rate=123.456,
        time_left="0:01:00",
        dropped=2,
    )
    return StepRecord(**{**values, **changes})


def test_each_kind_of_record_has_its_place_and_values(tmp_path, state, caplog):
    caplog.set_level("INFO")
    log = logger(tmp_path, state)
    log.step(step())
    log.step(step(loss_scale=2.0, info=MetricsTracker(frames=4.0, loss=math.inf)))
    log.bad_batch("loss")
    log.recovery("the loss diverges", "epoch-1.pt")
    log.valid(MetricsTracker(frames=2.0, loss=1.0), seconds=1.0)
    log.measurement(Measurement("wer", "the text", {"wer": 3.5}, {"valid_wer": 3.5}), seconds=1.0)
    log.epoch(0.5, 0.25)
    log.close()
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert state.metrics_lines == len(found) == 7
    where = {"epoch": 2, "batch": 5, "batch_idx_train": 17}
    for record in found:
        assert record.pop("time") > 0 and all(record.pop(name) == value for name, value in where.items())
    common = {"tot_loss": 3.0, "frames": 4.0, "lr": 0.01, "grad_norm": 1.5, "skipped": 0, "rate": 123.46}
    assert found == [
        {"type": "train", "loss": 2.0, "ctc_loss": 0.5, **common},
        {"type": "train", "loss": None, "grad_scale": 2.0, **common},
        {"type": "bad", "what": "loss", "skipped": 0},
        {
            "type": "recovery",
            "trouble": "the loss diverges",
            "back_to": "epoch-1.pt",
            "lr_factor": 1.0,
            "recoveries": 0,
        },
        {"type": "valid", "loss": 0.5},
        {"type": "wer", "wer": 3.5},
        {"type": "epoch", "train_loss": 0.5, "valid_loss": 0.25, "skipped": 0},
    ]
    first = caplog.messages[0]
    assert first.startswith(
        "Epoch 2, batch 4, loss[loss=2, ctc_loss=0.5, over 4.00 frames. ], tot_loss[loss=3"
    )
    assert "lr: 1.00e-02, grad norm: 1.5, rate: 123.5 tokens/s, memory: " in first
    assert first.endswith("left: 0:01:00") and "grad_scale: 2.0" in caplog.messages[1]


def test_a_step_before_anything_was_averaged_has_no_average(tmp_path, state):
    state.tot_loss = MetricsTracker()
    logger(tmp_path, state).step(step())
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["tot_loss"] is None


def test_other_ranks_write_no_files(tmp_path, state, caplog):
    caplog.set_level("INFO")
    log = logger(tmp_path, state, is_main=False)
    log.step(step())
    log.draw()
    log.close()
    assert not list(tmp_path.iterdir()) and state.metrics_lines == 0 and "Epoch 2, batch 4" in caplog.text


def test_pictures_are_drawn_now_and_then_and_never_end_a_run(tmp_path, state, caplog, monkeypatch):
    drawn, clock = [], SimpleNamespace(now=0.0)

    def plot(folder):
        drawn.append(clock.now)
        raise UserError("no space left")

    monkeypatch.setattr(records, "plot_losses", plot)
    monkeypatch.setattr(records.time, "monotonic", lambda: clock.now)
    log = logger(tmp_path, state)
    for now in (1.0, 59.0, 61.0, 100.0, 122.0):
        clock.now = now
        log.draw(in_between=True)
    clock.now = 123.0
    log.draw()
    assert drawn == [61.0, 122.0, 123.0] and caplog.text.count("no picture of the losses: no space left") == 3


def test_tensorboard_has_the_reference_tags(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert fake_run.run(tmp_path, tensorboard=True, num_epochs=1) == 0
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = {"learning_rate", "epoch", "current_loss", "current_simple_loss", "tot_pruned_loss", "valid_loss"}
    assert {f"train/{tag}" for tag in tags} <= set(found.Tags()["scalars"])

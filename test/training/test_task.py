"""The loop trains whatever implements a task: here a straight line, which knows nothing of speech."""

import logging
import random

import pytest
import torch
from fake_run import records
from torch import nn

from asr_core.training.batch_loss import BatchLoss, BatchSize
from asr_core.training.checkpoint import read_whole
from asr_core.training.loop import train
from asr_core.training.options import LoopOptions
from asr_core.training.schedule import LRScheduler
from asr_core.training.task import Measurement, Task, Trial
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, defaults_of

SLOPE, POINTS, BATCHES = 3.0, 4, 5


class Constant(LRScheduler):
    def factor(self):
        return 1.0


class Points:
    """Points (x, SLOPE x); batch ``bad`` of the first epoch has one that is not a number."""

    num_dropped = 0
    valid_sets = ("",)

    def __init__(self, params):
        self.params = params

    def train_batches(self, epoch, skip_batches=0, bucket_run=0):
        for index in range(skip_batches, BATCHES):
            x = torch.linspace(-1, 1, POINTS) + 0.1 * index
            if (epoch, index) == (1, self.params.get("bad")):
                x[2] = float("nan")
            yield {"x": x, "y": SLOPE * x, "batch_idx": index}

    def valid_batches(self, name):
        yield {"x": torch.ones(POINTS), "y": SLOPE * torch.ones(POINTS), "batch_idx": 0}

    def size_of(self, batch):
        return BatchSize(items=POINTS, amount=10.0 * POINTS)

    def describe(self, batch):
        return [{"id": f"point {batch['batch_idx']}.{i}"} for i in range(POINTS)]

    def shape_of(self, batch):
        return list(batch["x"].shape)

    def report(self):
        return 10.0 * POINTS * BATCHES

    def memory_trials(self, device):
        return self.params.get("trials")


class Slope:
    """A metric: the slope itself, at the end of even epochs."""

    def due(self, epoch):
        return epoch % 2 == 0

    def count(self, model, data):
        assert not model.training
        return [model.weight.item(), 1.0]

    def result(self, counts):
        slope = counts[0] / counts[1]
        return Measurement("slope", f"the slope is {slope:.3f}", {"slope": slope}, {"slope": slope})


class Line(Task):
    unit, rate_name, lr_option = "points", "points_per_second", "--rate"
    reference_batches = 0.5

    def build_model(self):
        return nn.Linear(1, 1, bias=False)

    def build_data(self):
        return Points(self.params)

    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), 0.02)

    def build_scheduler(self, optimizer):
        return Constant(optimizer)

    def build_metric(self):
        return Slope()

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        if self.params.get("hungry_at") == batch_idx_train:
            raise MemoryError
        error = (model(batch["x"][:, None])[:, 0] - batch["y"]) ** 2  # (N,)
        error = error + 0.0 * random.random()
        return BatchLoss(error if reduction == "none" else error.sum(), {}, frames=POINTS)

    def describe_valid_loss(self, loss):
        return f"root of the loss {loss**0.5:.3f}"

    def smaller_batches(self):
        return "use fewer points"

    def slower_learning(self):
        return "lower --rate"


def run(exp_dir, **changes):
    params = AttributeDict({**defaults_of(LoopOptions), "exp_dir": str(exp_dir), "device": "cpu"})
    params.update(num_epochs=4, log_interval=1, average_period=1, save_every_n=2, tensorboard=False)
    params.update(changes)
    return train(Line(params))


def test_the_line_is_found_and_its_metrics_are_recorded(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert run(tmp_path) == 0
    found = records(tmp_path)
    slopes = [record["slope"] for record in found if record["type"] == "slope"]
    assert len(slopes) == 2 and abs(slopes[1] - SLOPE) < abs(slopes[0] - SLOPE) < SLOPE
    weight = float(read_whole(tmp_path / "epoch-4.pt")["model"]["weight"])
    assert slopes[1] == weight
    losses = [record["loss"] for record in found if record["type"] == "valid"]
    assert losses[-1] == pytest.approx((weight - SLOPE) ** 2, rel=1e-5)
    assert f"validation: root of the loss {losses[-1] ** 0.5:.3f}" in caplog.text
    assert "the slope is" in caplog.text and " points/s" in caplog.text


def test_reference_batches_are_the_tasks_own(tmp_path):
    assert run(tmp_path, accum_grad=2, max_steps=2) == 0
    state = read_whole(tmp_path / "checkpoint-2.pt")["train_state"]
    assert state["count_rate"] == 0.5 * 2


def test_steps_of_any_size_count_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(Line, "reference_batches", 0.0)
    assert run(tmp_path, accum_grad=2, max_steps=2) == 0
    state = read_whole(tmp_path / "checkpoint-2.pt")["train_state"]
    assert state["count_rate"] == 1.0


def test_an_interrupted_line_continues_exactly(tmp_path):
    assert run(tmp_path / "whole") == 0
    for steps in (3, 11, 0):
        assert run(tmp_path / "parts", max_steps=steps) == 0
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


def test_bad_batches_and_lack_of_memory_are_explained_in_the_tasks_words(tmp_path, caplog):
    assert run(tmp_path / "bad", bad=3, num_epochs=1) == 0
    assert "cuts: point 3.2" in caplog.text and "point 3.1" not in caplog.text
    with pytest.raises(UserError, match=r"shape \[\[4\]\].*point 1.0, point 1.1.*: use fewer points"):
        run(tmp_path / "hungry", hungry_at=2)


class Trials:
    """Two trials, of whose items at most ``limit`` fit into memory."""

    def __init__(self, limit):
        self.limit = limit
        self.loaded = []

    def find(self):
        return [Trial("the most points", 0, range(7)), Trial("the longest", 1, range(2))]

    def load(self, trial, num_items):
        self.loaded.append((trial.position, num_items))
        if num_items > self.limit:
            raise MemoryError
        return None if num_items == 1 else next(Points({}).train_batches(1))

    def advice(self, trial, num_fit):
        return f"{trial.reason}, of whose {len(trial.items)} items {num_fit} fit"


def test_memory_is_tried_before_training(tmp_path):
    trials = Trials(limit=7)
    assert run(tmp_path / "enough", trials=trials, num_epochs=1) == 0
    assert trials.loaded == [(0, 7), (1, 2)]
    assert run(tmp_path / "untried", num_epochs=1) == 0
    assert records(tmp_path / "enough") == records(tmp_path / "untried")
    trials = Trials(limit=4)
    with pytest.raises(UserError, match="out of memory on the most points, of whose 7 items 4 fit"):
        run(tmp_path / "short", trials=trials)
    assert trials.loaded[0] == (0, 7) and (0, 4) in trials.loaded and (0, 5) in trials.loaded

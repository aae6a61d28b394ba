"""The stages of a step, and how the loop counts."""

import fake_run
import pytest
import torch

from asr_core.training.checkpoint import RunCheckpoint
from asr_core.training.distributed.gradients import Gradients
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.forward_backward import StepLosses
from asr_core.training.loop import Trainer
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.stepper import Stepper
from asr_core.training.reporting.records import RunLogger
from asr_core.training.setup import build_run


def test_a_step_goes_through_its_stages_in_order(tmp_path, monkeypatch):
    events = []

    def noting(cls, name, event):
        method = getattr(cls, name)

        def noted(self, *args, **kwargs):
            events.append(event)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, noted)

    class Noting(fake_run.FakeRecipe):
        def compute_loss(self, model, *args, **kwargs):
            events.append("forward" if model.training else "validate")
            assert torch.is_grad_enabled() == model.training
            return super().compute_loss(model, *args, **kwargs)

    for cls, name, event in (
        (Gradients, "add", "backward"),
        (Stepper, "start", "step"),
        (ModelAverage, "update", "average"),
        (StepLosses, "settle", "wait"),
        (RunLogger, "step", "log"),
        (RunLogger, "valid", "log validation"),
        (RunCheckpoint, "save", "save"),
    ):
        noting(cls, name, event)
    common = dict(recipe=Noting, max_steps=1, accum_grad=2, average_period=1, save_every_n=1)
    assert fake_run.run(tmp_path, valid_interval=1, **common) == 0
    step = ["forward", "backward", "forward", "backward", "step", "average", "wait", "log"]
    assert events == [*step, "validate", "validate", "log validation", "save"]


def test_all_attributes_of_the_loop_exist_before_it_starts(tmp_path):
    task = fake_run.FakeRecipe(fake_run.make_params(tmp_path, num_epochs=1), fake_run.CORPUS)
    run = build_run(task, SingleProcess())
    trainer = Trainer(run, epoch_size=1.0)
    objects = (
        trainer,
        trainer.progress,
        trainer.logger,
        trainer.bad_batches,
        run.parts.scheduler,
        run.stepper,
    )
    before = [set(vars(each)) for each in objects]
    assert trainer.train() == 0
    assert [set(vars(each)) for each in objects] == before


def test_schedules_count_reference_batches(tmp_path):
    seen = []

    class Watching(fake_run.FakeRecipe):
        def compute_loss(self, model, *args, **kwargs):
            seen.append(model.dropout.value)
            return super().compute_loss(model, *args, **kwargs)

    assert fake_run.run(tmp_path, recipe=Watching, max_steps=2, ref_duration=0.5) == 0
    assert seen[:2] == pytest.approx(
        [0.5 - 0.4 * 4 / 20, 0.5 - 0.4 * 8 / 20]
    )  # 2 s a batch are 4 reference batches


def test_schedules_go_on_where_they_were_when_steps_become_larger(tmp_path):
    class Watching(fake_run.FakeRecipe):
        counts = []

        def compute_loss(self, model, *args, **kwargs):
            if model.training:
                self.counts.append((0.5 - model.dropout.value) / 0.02)
            return super().compute_loss(model, *args, **kwargs)

    assert fake_run.run(tmp_path, recipe=Watching, max_steps=3) == 0
    assert fake_run.run(tmp_path, recipe=Watching, max_steps=5, max_duration=5.0) == 0
    assert fake_run.run(tmp_path, recipe=Watching, max_steps=6, max_duration=5.0) == 0
    assert fake_run.run(tmp_path, recipe=Watching, max_steps=7) == 0
    assert Watching.counts == pytest.approx([1.0, 2.0, 3.0, 5.5, 8.0, 10.5, 11.5])

"""How the loop counts: reference batches behind schedules of modules."""

import fake_run
import pytest


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

"""What is recorded of a run, for each kind of reader."""

import fake_run
import pytest


def test_tensorboard_has_the_reference_tags(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert fake_run.run(tmp_path, tensorboard=True, num_epochs=1) == 0
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = {"learning_rate", "epoch", "current_loss", "current_simple_loss", "tot_pruned_loss", "valid_loss"}
    assert {f"train/{tag}" for tag in tags} <= set(found.Tags()["scalars"])

"""A run that failed: what it saved meanwhile is set aside, and the same command goes on from before."""

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import read_whole
from asr_core.utils.errors import UserError


class Exploding(fake_run.FakeRecipe):
    """Weights become huge, but stay finite, at step ``explode_at``.

    With such weights the loss is high, and not finite at two of three steps or, from step 22 on, at
    all.
    """

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        if model.training and batch_idx_train == self.params.get("explode_at"):
            model.out.weight.data.fill_(1.0e6)
        out = super().compute_loss(model, batch, batch_idx_train, reduction)
        if not model.training or model.out.weight.abs().max() < 1.0e5:
            return out
        finite = batch_idx_train < 22 and batch_idx_train % 3 == 0
        return out._replace(loss=out.loss * (100.0 if finite else float("nan")))


def fail(exp_dir, **options):
    """Run until it fails; return the message."""
    with pytest.raises(UserError) as raised:
        fake_run.run(exp_dir, recipe=Exploding, **{"keep_last_k": 9, **options})
    return str(raised.value)


def names(exp_dir):
    return {path.name for path in exp_dir.glob("*-[0-9]*.pt")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The records and the last weights of a run without trouble."""
    exp_dir = tmp_path_factory.mktemp("whole")
    assert fake_run.run(exp_dir) == 0
    return records(exp_dir), read_whole(exp_dir / "epoch-3.pt")["model"]


def assert_ends_as(whole, exp_dir):
    assert records(exp_dir) == whole[0]
    weights = read_whole(exp_dir / "epoch-3.pt")["model"]
    assert all(torch.equal(weights[name], value) for name, value in whole[1].items())


def test_huge_finite_weights_are_not_continued_from(whole, tmp_path):
    """Good steps among the bad ones do not make the checkpoints between them good."""
    line = fail(tmp_path, explode_at=14)
    assert "10 batches in a row had a loss that is not finite" in line and "at batch 31" in line
    spoilt = ["checkpoint-30.pt", "checkpoint-25.pt", "checkpoint-20.pt", "checkpoint-15.pt", "epoch-2.pt"]
    assert f"is set aside as bad-* ({', '.join(spoilt)}); the same command goes on from epoch-1.pt" in line
    kept = {"checkpoint-5.pt", "checkpoint-10.pt", "epoch-1.pt", "bad-model-0.pt"}
    assert names(tmp_path) == kept | {f"bad-{name}" for name in spoilt}
    assert read_whole(tmp_path / "bad-epoch-2.pt")["model"]["out.weight"].max() > 1.0e5
    assert fake_run.run(tmp_path) == 0
    assert_ends_as(whole, tmp_path)


def test_a_run_that_explodes_at_its_start_starts_anew(whole, tmp_path):
    line = fail(tmp_path, explode_at=2)
    assert line.count("the same command starts anew") == 1
    assert not numbered(tmp_path, "checkpoint") and not numbered(tmp_path, "epoch")
    assert fake_run.run(tmp_path) == 0
    assert_ends_as(whole, tmp_path)


@pytest.mark.parametrize(
    "changed", [{"base_lr": 0.2}, {"max_duration": 99.0}, {"lm_scale": 0.0, "base_lr": 0.01}]
)
def test_changed_options_are_to_blame_before_the_checkpoint_from_which_the_run_started(
    whole, tmp_path, changed
):
    assert fake_run.run(tmp_path, max_steps=23) == 0
    line = fail(tmp_path, explode_at=24, **changed)
    assert (
        "the same command goes on from checkpoint-23.pt" in line and (tmp_path / "checkpoint-23.pt").exists()
    )
    assert fake_run.run(tmp_path) == 0
    assert_ends_as(whole, tmp_path)


@pytest.mark.parametrize("changed", [{}, {"base_lr": 0.01, "warm_step": 20, "keep_last_k": 8}])
def test_a_checkpoint_from_which_nothing_good_comes_is_to_blame(whole, tmp_path, changed):
    """Also if the user has followed the advice."""
    assert fake_run.run(tmp_path, max_steps=23) == 0
    path = tmp_path / "checkpoint-23.pt"
    content = read_whole(path)
    content["model"]["out.weight"].fill_(1.0e6)
    torch.save(content, path)
    line = fail(tmp_path, **{"keep_last_k": 9, **changed})
    assert not path.exists() and "the same command goes on from checkpoint-20.pt" in line
    assert fake_run.run(tmp_path) == 0
    assert_ends_as(whole, tmp_path)


def test_recovery_goes_back_to_before_the_trouble_began(tmp_path, caplog):
    options = dict(explode_at=14, auto_recover=True, average_period=1, keep_last_k=9, gain_prob=0.0)
    assert fake_run.run(tmp_path, recipe=Exploding, **options) == 0
    assert "Recovery 1 of 3: back to the average over batches 10 to 12" in caplog.text
    state = read_whole(tmp_path / "epoch-3.pt")
    assert state["train_state"]["bad_spans"] == [[13, 31]] and state["train_state"]["trouble_from"] == 0
    assert state["model"]["out.weight"].abs().max() < 1.0e3


def test_single_bad_batches_spoil_nothing(tmp_path):
    """After ten good steps a bad one is forgotten."""
    with pytest.raises(UserError, match="goes on from checkpoint-30.pt"):
        fake_run.run(tmp_path, bad_steps=(3, 14, *range(31, 37)), max_bad_batches=4)
    assert {f"checkpoint-{n}.pt" for n in (15, 20, 30)} | {"epoch-2.pt"} <= names(tmp_path)

"""Steps that are skipped, and exceptions in a step: what is recorded of their batches."""

import json

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.training.checkpoint import read_whole
from asr_core.training.distributed.launch import RankInfo
from asr_core.training.distributed.world import PeerLost, SingleProcess
from asr_core.training.health.bad_batches import BadBatches, is_out_of_memory, names_of
from asr_core.training.reporting.writers import read_metrics
from asr_core.training.state import TrainState
from asr_core.utils.errors import UserError


class Describing:
    """Data whose batches are lists of names."""

    def describe(self, batch):
        return [{"id": name} for name in batch]

    def shape_of(self, batch):
        return [len(batch)]


class TwoRanks(SingleProcess):
    def gather(self, value):
        return [value, [{"id": "other", "value": 1.0}]]


def test_a_skipped_step_names_the_cuts_of_all_ranks_and_counts(tmp_path):
    state = TrainState(epoch=2, batch_idx_train=9)
    bad = BadBatches(tmp_path, TwoRanks(), state, Describing())
    assert bad.record_skipped("loss", [{"id": "mine", "value": float("nan")}]) == "mine, other"
    assert bad.record_skipped("gradient", []) == "other"
    assert (state.bad_batches, state.bad_in_a_row, state.bad_cuts_lines) == (2, 2, 3)
    assert bad_cuts(tmp_path)[:2] == [
        {"id": "mine", "value": "nan", "epoch": 2, "batch": 9, "what": "loss"},
        {"id": "other", "value": "1.0", "epoch": 2, "batch": 9, "what": "loss"},
    ]
    other = BadBatches(tmp_path, TwoRanks(RankInfo(rank=1, size=2)), TrainState(), Describing())
    assert other.record_skipped("loss", []) == "other" and len(bad_cuts(tmp_path)) == 3


def test_a_message_names_ten_cuts():
    cuts = [{"id": n} for n in range(11)]
    assert names_of(cuts[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert names_of(cuts) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."
    assert names_of([]) == ""


@pytest.mark.parametrize(
    "error, yes",
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Unable to allocate 3 GiB"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error, yes):
    assert is_out_of_memory(error) == yes


@pytest.mark.parametrize("error", [UserError("wrong"), PeerLost("gone")])
def test_what_is_no_fault_of_a_batch_is_not_blamed_on_it(tmp_path, error):
    bad = BadBatches(tmp_path, SingleProcess(), TrainState(), Describing())
    with pytest.raises(type(error)), bad.reporting_errors([["a"]], "advice"):
        raise error
    assert not list(tmp_path.iterdir())


def test_batches_of_a_failed_step_are_described_but_for_those_of_other_ranks(tmp_path):
    bad = BadBatches(tmp_path, SingleProcess(RankInfo(rank=1, size=2)), TrainState(epoch=3), Describing())
    with pytest.raises(
        UserError, match=r"out of memory at batch 0, inputs of shape \[\[2\], \[1\]\], cuts a, b, c"
    ):
        with bad.reporting_errors([["a", "b"], None, ["c"]], "take fewer"):
            raise MemoryError("no room")
    found = json.loads((tmp_path / "bad-batch-1.json").read_text())
    assert found["error"] == "MemoryError: no room" and found["shapes"] == [[2], [1]] and found["epoch"] == 3
    assert [cut["id"] for cut in found["cuts"]] == ["a", "b", "c"]


def bad_cuts(exp_dir):
    return [json.loads(line) for line in (exp_dir / "bad-cuts.jsonl").read_text().splitlines()]


def test_bad_cuts_are_written_and_counted(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert fake_run.run(tmp_path, bad_steps=(3, 6), num_epochs=1, tensorboard=True) == 0
    first, second = bad_cuts(tmp_path)
    assert first.pop("text") in "123456"
    assert first == {
        "id": "cut-1-2-1",
        "recording": None,
        "duration": None,
        "epoch": 1,
        "batch": 3,
        "what": "loss",
        "value": "nan",
    }
    assert second["id"] == "cut-1-5-1" and second["batch"] == 6
    got = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["batch_idx_train"], r["what"]) for r in got if r["type"] == "bad"] == [
        (3, "loss"),
        (6, "loss"),
    ]
    assert [r["skipped"] for r in got if r["type"] == "train"] == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/bad_batches") if e.step in (3, 6)] == [
        (3, 1.0),
        (6, 2.0),
    ]
    wanted = {"audio_seconds_per_second", "dropped_cuts", "grad_norm", "bad_batches"}
    assert {f"train/{name}" for name in wanted} <= set(found.Tags()["scalars"])


def test_bad_cuts_of_lost_steps_are_not_written_twice(tmp_path):
    assert fake_run.run(tmp_path, bad_steps=(3, 6), num_epochs=1) == 0
    whole, lines = records(tmp_path), bad_cuts(tmp_path)
    assert fake_run.run(tmp_path, bad_steps=(3, 6), num_epochs=1, start_batch=5) == 0
    assert bad_cuts(tmp_path) == lines and records(tmp_path) == whole


class Failing(fake_run.FakeRecipe):
    error: Exception = ValueError("three is too many")

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        if batch_idx_train == 3:
            raise self.error
        return super().compute_loss(model, batch, batch_idx_train, reduction)


def test_an_exception_in_a_step_leaves_the_batch_described(tmp_path, caplog):
    with pytest.raises(ValueError, match="three is too many"):
        fake_run.run(tmp_path, recipe=Failing)
    found = json.loads((tmp_path / "bad-batch-0.json").read_text())
    assert (
        found["error"] == "ValueError: three is too many"
        and found["batch"] == 3
        and found["shapes"] == [[3, 20, 8]]
    )
    assert [cut["id"] for cut in found["cuts"]] == ["cut-1-2-0", "cut-1-2-1", "cut-1-2-2"]
    assert "batch 3 failed" in caplog.text and "cut-1-2-0, cut-1-2-1" in caplog.text


def test_out_of_memory_in_a_step_is_reported_in_one_line(tmp_path):
    class Hungry(Failing):
        error = RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(
        UserError,
        match=r"out of memory at batch 3, .*\[3, 20, 8\].*cut-1-2-0.*lower --max-duration \(now 2\)",
    ):
        fake_run.run(tmp_path, recipe=Hungry)


def test_a_bad_batch_is_named_skipped_and_counted(tmp_path, caplog):
    assert fake_run.run(tmp_path, bad_steps=(3, 6), num_epochs=1) == 0
    assert "batch 3 is skipped, its loss is not finite (1 so far); cuts: cut-1-2-1" in caplog.text
    assert "cut-1-5-1" in caplog.text and "cut-1-5-0" not in caplog.text
    got = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["batch_idx_train"] for r in got if r["type"] == "train"] == [1, 2, 4, 5, 7, 8, 9, 10, 11, 12]
    assert got[-1]["skipped"] == 2
    assert all(torch.isfinite(v).all() for v in read_whole(tmp_path / "epoch-1.pt")["model"].values())


@pytest.mark.parametrize("optimizer", ["scaled_adam", "sgd"])
def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path, caplog, optimizer):
    class BadGradient(fake_run.FakeRecipe):
        def build_optimizer(self, model):
            return (
                super().build_optimizer(model)
                if optimizer == "scaled_adam"
                else torch.optim.SGD(model.parameters(), lr=1e-3)
            )

        def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
            out = super().compute_loss(model, batch, batch_idx_train, reduction)
            if batch_idx_train == 2:
                out.loss.register_hook(lambda grad: grad * float("inf"))
            return out

    assert fake_run.run(tmp_path, recipe=BadGradient, max_steps=1, average_period=1, save_every_n=1) == 0
    assert fake_run.run(tmp_path, recipe=BadGradient, max_steps=2, average_period=1, save_every_n=1) == 0
    assert (
        "batch 2 is skipped, its gradient is not finite (1 so far); cuts: cut-1-1-0, cut-1-1-1" in caplog.text
    )
    one, two = (read_whole(tmp_path / f"checkpoint-{n}.pt")["model"] for n in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_validation_loss_that_is_not_finite_is_left_out_and_named(tmp_path, caplog):
    class BadValidation(fake_run.FakeRecipe):
        def build_datamodule(self):
            data = super().build_datamodule()
            batch = data._batch

            def spoilt(seed, index):
                out = batch(seed, index)
                if (seed, index) == (99, 1):
                    out["inputs"][:] = float("nan")
                return out

            data._batch = spoilt
            return data

    for folder, recipe in (("good", fake_run.FakeRecipe), ("bad", BadValidation)):
        assert fake_run.run(tmp_path / folder, recipe=recipe, max_steps=8) == 0
    good, bad = (
        [r for r in read_metrics(tmp_path / d / "metrics.jsonl") if r["type"] == "valid"][0]
        for d in ("good", "bad")
    )
    assert 0.7 < bad["loss"] / good["loss"] < 1.4  # and not half of it
    assert "left out of the validation, as its loss is not finite: cuts cut-99-1-0, cut-99-1-1" in caplog.text

"""The loop's arithmetic and its behaviour when something is not finite."""

import fake_run
import pytest
import torch

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import read_whole
from asr_core.training.losses import transducer_loss_scales
from asr_core.training.metrics import MetricsTracker
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.writers import JsonLines, read_metrics
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params


def test_loss_scales_move_to_their_final_values():
    assert transducer_loss_scales(0, 100, 0.5) == (1.0, 0.1)
    assert transducer_loss_scales(50, 100, 0.5) == pytest.approx((0.75, 0.55))
    assert transducer_loss_scales(100, 100, 0.5) == (0.5, 1.0)
    assert transducer_loss_scales(5, 0, 0.5) == (0.5, 1.0)


def test_metrics_decay_and_divide_by_frames():
    total = MetricsTracker()
    total = total.add({"frames": 10.0, "loss": 20.0}, keep=0.9)
    total = total.add({"frames": 10.0, "loss": 30.0}, keep=0.9)
    assert dict(total) == {"frames": 19.0, "loss": 48.0}
    assert dict(total.per_frame()) == {"loss": pytest.approx(48 / 19)}
    assert str(total) == "loss=2.526, over 19.00 frames. "


@pytest.mark.parametrize(
    "bad", [{"loss": float("nan")}, {"ctc_loss": float("inf")}, {"frames": float("nan")}]
)
def test_metrics_that_are_not_finite_are_refused_as_a_whole(bad):
    total, batch = (
        MetricsTracker(frames=10.0, loss=20.0),
        MetricsTracker({"frames": 10.0, "loss": 20.0, **bad}),
    )
    assert total.is_finite() and not batch.is_finite()
    with pytest.raises(ValueError, match=f"{next(iter(bad))} (nan|inf)"):
        total.add(batch)
    assert dict(total.per_frame()) == {"loss": 2.0}  # and not 1.0, with the frames of a loss that is missing


def test_metrics_file_forgets_lines_of_lost_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a')
    assert len(read_metrics(path)) == 3
    file = JsonLines(path, 2)
    file.append({"a": 9, "b": float("inf")})
    assert read_metrics(path) == [{"a": 1}, {"a": 2}, {"a": 9, "b": None}] and file.lines == 3


def test_average_is_the_mean_of_the_snapshots():
    torch.manual_seed(0)
    model = torch.nn.BatchNorm1d(3)
    tied = torch.nn.ModuleDict({"a": model, "b": model})
    average = ModelAverage(tied, period=2)
    snapshots = []
    for batch in range(1, 9):
        with torch.no_grad():
            model.weight.add_(torch.randn(3))
        average.update(batch)
        if batch % 2 == 0:
            snapshots.append(model.weight.detach().double().clone())
    got = average.state_dict()
    torch.testing.assert_close(got["a.weight"], torch.stack(snapshots).mean(0), rtol=1e-12, atol=1e-12)
    assert got["b.weight"] is got["a.weight"] and got["a.num_batches_tracked"].dtype == torch.int64
    tied.load_state_dict(got)  # the names and shapes are the model's


def test_a_bad_batch_is_named_skipped_and_counted(tmp_path, caplog):
    assert fake_run.run(tmp_path, bad_steps=(3, 6), num_epochs=1) == 0
    assert "batch 3 is skipped, its loss is not finite (1 so far); cuts: cut-1-2-1" in caplog.text
    assert "cut-1-5-1" in caplog.text and "cut-1-5-0" not in caplog.text
    got = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["batch_idx_train"] for r in got if r["type"] == "train"] == [1, 2, 4, 5, 7, 8, 9, 10, 11, 12]
    assert got[-1]["skipped"] == 2
    assert all(torch.isfinite(v).all() for v in read_whole(tmp_path / "epoch-1.pt")["model"].values())


def test_too_many_bad_batches_in_a_row_stop_the_run(tmp_path):
    with pytest.raises(
        UserError,
        match="3 batches in a row had a loss that is not finite, .* cut-1-5-1 at batch 6.* lower --base-lr",
    ):
        fake_run.run(tmp_path, bad_steps=(2, 4, 5, 6), max_bad_batches=3)


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


def test_keep_last_k_leaves_epoch_files_alone(tmp_path):
    assert fake_run.run(tmp_path, keep_last_k=2, save_every_n=4, num_epochs=2) == 0
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [24, 20]
    assert [n for n, _ in numbered(tmp_path, "epoch")] == [2, 1]


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


def test_a_validation_loss_that_is_not_finite_is_left_out_and_told(tmp_path, caplog):
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


def test_tensorboard_has_the_reference_tags(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert fake_run.run(tmp_path, tensorboard=True, num_epochs=1) == 0
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = {"learning_rate", "epoch", "current_loss", "current_simple_loss", "tot_pruned_loss", "valid_loss"}
    assert {f"train/{tag}" for tag in tags} <= set(found.Tags()["scalars"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"world_size": 0}, "--world-size must be at least 1"),
        ({"use_fp16": True, "use_bf16": True}, "exclude each other"),
        ({"save_every_n": 10}, "must not be less than --average-period"),
        ({"keep_last_k": 0}, "--keep-last-k must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        from_params(LoopOptions, changes).validate()


def test_float16_is_refused_on_the_cpu(tmp_path):
    with pytest.raises(UserError, match="needs a CUDA device for float16, and this run is on the cpu"):
        fake_run.run(tmp_path, use_fp16=True)

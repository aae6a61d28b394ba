"""A run that meets bad batches, a loss scale that collapses, a loss that diverges, or memory that runs out."""

import json
import logging
import random
from types import SimpleNamespace

import fake_run
import pytest
import torch
from fake_run import records
from tiny_program import TINY, ZipformerRecipe, train

from asr_core.models.averaging import average_of_range, numbered
from asr_core.training import setup
from asr_core.training.asr_data import batch_advice, describe_cuts, find_extremes
from asr_core.training.checkpoint import read_whole
from asr_core.training.health.oom_scan import OomScan
from asr_core.training.health.recovery import DivergenceMonitor
from asr_core.training.optim.stepper import Stepper
from asr_core.training.options import LoopOptions
from asr_core.training.reporting.startup_report import report_disk
from asr_core.training.reporting.writers import read_metrics
from asr_core.training.state import TrainState, random_states
from asr_core.training.word_error_metric import WordErrorMetric
from asr_core.utils.errors import UserError


def bad_cuts(exp_dir):
    return [json.loads(line) for line in (exp_dir / "bad-cuts.jsonl").read_text().splitlines()]


# -- bad batches ---------------------------------------------------------------------------------------------------------


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


def test_a_mixed_cut_is_described_by_its_first_recording():
    mono = SimpleNamespace(id="a", recording=SimpleNamespace(id="rec"), duration=1.5)
    mixed = SimpleNamespace(
        id="b", tracks=[SimpleNamespace(cut=mono), SimpleNamespace(cut=None)], duration=2.0
    )
    batch = {"supervisions": {"text": ["x", "y"], "cut": [mono, mixed]}}
    assert [(c["id"], c["recording"], c["duration"]) for c in describe_cuts(batch)] == [
        ("a", "rec", 1.5),
        ("b", "rec", 2.0),
    ]


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


def test_out_of_memory_in_a_step_is_told_in_one_line(tmp_path):
    class Hungry(Failing):
        error = RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(
        UserError,
        match=r"out of memory at batch 3, .*\[3, 20, 8\].*cut-1-2-0.*lower --max-duration \(now 2\)",
    ):
        fake_run.run(tmp_path, recipe=Hungry)


# -- recovery ------------------------------------------------------------------------------------------------------------

TROUBLE = dict(bad_steps=(13, 14, 15), max_bad_batches=3, average_period=1)


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
        watch = DivergenceMonitor(LoopOptions(reset_interval=10, **options), TrainState())
        return next((n for n, loss in enumerate(losses, 1) if watch.check(loss, 1.0, "")), None)

    assert steps_until_trouble([1.0] * 20 + [5.0] * 9 + [1.0] * 20) is None  # not for long enough
    assert steps_until_trouble([1.0] * 20 + [5.0] * 20) == 30
    assert steps_until_trouble([1.0] * 20 + [2.9] * 50) is None
    assert steps_until_trouble([1.0] * 20 + [2.9] * 50, divergence_factor=2.0) == 30
    assert steps_until_trouble([0.001] * 20 + [0.1] * 50) is None  # losses that are nearly zero may grow
    assert steps_until_trouble([1.0] * 20 + [float("nan")] * 50) is None  # another trouble


def test_a_low_loss_scale_is_noticed():
    watch = DivergenceMonitor(LoopOptions(reset_interval=5), TrainState())
    assert [bool(watch.check(1.0, 0.005, "")) for _ in range(5)] == [False] * 4 + [True]
    assert watch.check(1.0, 1.0, "") is None and watch.state.low_scale_steps == 0
    assert "fell to 5.0e-06" in watch.check(1.0, 5e-6, "").what


# -- mixed precision -----------------------------------------------------------------------------------------------------


def test_an_overflow_with_a_high_scale_is_no_reason_to_worry():
    p = torch.nn.Linear(1, 1, bias=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    stepper = Stepper(p, torch.optim.SGD(p.parameters(), lr=1.0), scaler)
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
        match="the loss scale of float16 fell to .*doubled every 25 steps.*lower --base-lr .*0.005.*--use-bf16 1",
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


# -- before training -----------------------------------------------------------------------------------------------------


def cut(name, duration, text="x"):
    return SimpleNamespace(id=name, duration=duration, supervisions=[SimpleNamespace(text=text)])


BATCHES = [
    (0, [cut("long", 20.0)]),
    (1, [cut(f"short{i}", 0.5) for i in range(30)]),
    (2, [cut(f"mid{i}", 5.0 - 0.1 * i) for i in range(5)]),
    (3, [cut(f"talk{i}", 3.0, "x" * 30) for i in range(5)]),
    (4, [cut("plain", 2.0)]),
]


def test_the_largest_batches_are_found():
    found = {trial.position: trial.reason for trial in find_extremes(BATCHES)}
    assert found == {
        0: "the longest utterance", 1: "the most cuts", 2: "the most audio, padding counted, the most audio", 3: "the most text"
    }  # fmt: skip


def scan(limit, model):
    def load(trial, num_items):
        return {"seconds": sum(c.duration for c in trial.items[:num_items])}

    def advice(trial, num_fit):
        return batch_advice(trial, num_fit, 25.0)

    def loss_of(batch):
        random.random()
        if batch["seconds"] > limit:
            raise MemoryError
        return model(torch.rand(4, 8)).sum() * torch.rand(())

    return OomScan(model, loss_of, SimpleNamespace(load=load, advice=advice), torch.device("cpu"))


def test_the_scan_leaves_everything_as_it_was():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    before = random_states()
    scan(1e9, model).run(find_extremes(BATCHES))
    after = random_states()
    assert before["python"] == after["python"] and torch.equal(before["torch"], after["torch"])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


def test_memory_that_does_not_suffice_is_told_with_what_would():
    model = torch.nn.Linear(8, 8)
    with pytest.raises(
        UserError,
        match="with the most audio.*: 5 cuts, 24 s, .*--max-duration 25; 4 of its cuts fit, .*--max-duration 19",
    ):
        scan(20.5, model).run(find_extremes(BATCHES)[1:])
    with pytest.raises(UserError, match="not even one of its cuts fits alone: lower --max-utt-duration"):
        scan(10.0, model).run(find_extremes(BATCHES)[:1])


def test_scan_and_report_of_the_program(prepared, tmp_path, capfd):
    from lhotse import CutSet

    for exp, flag in ("with", "1"), ("without", "0"):
        assert (
            train(prepared, tmp_path / exp, "--scan-for-oom", flag, "--num-epochs", "1", "--max-steps", "3")
            == 0
        )
        out = capfd.readouterr().err
        assert ("kinds of batches fit into memory" in out) == (flag == "1")
        assert "tokens per second" in out and "Training data: 0.00 hours in 11 utterances, 1.3 s each" in out
    assert records(tmp_path / "with") == records(tmp_path / "without")

    folder = tmp_path / "unk"
    folder.mkdir()
    for part in ("train", "valid"):
        cuts = list(CutSet.from_file(prepared / f"tiny_cuts_{part}.jsonl.gz"))
        cuts[3 if part == "train" else 0].supervisions[0].text = "ONE CAFÉ"
        CutSet.from_cuts(cuts).to_file(folder / f"tiny_cuts_{part}.jsonl.gz")
    argv = ["--manifest-dir", str(folder), "--max-steps", "1"]
    assert train(prepared, tmp_path / "refused", *argv) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert (
        last.startswith("error: 1 training cuts would give <unk>")
        and "in cut3. Correct the text" in last
        and "É" in last
    )
    assert train(prepared, tmp_path / "allowed", *argv, "--allow-unk", "1") == 0
    assert "characters that the tokens lack" in capfd.readouterr().err


def test_the_disk_report_counts_all_that_will_be_there(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = torch.nn.Linear(1000, 1000, bias=False)
    report_disk(model, tmp_path, 10, 5)
    assert (
        "20.0 MB each, at most 0.36 GB more for 10 epochs, the last 5" in caplog.text
    )  # 10 + 5, 2 best, 1 being written
    for n in (1, 2):
        (tmp_path / f"epoch-{n}.pt").write_bytes(b"")
    report_disk(model, tmp_path, 10, 5)
    assert "at most 0.32 GB more" in caplog.text


# -- word errors ---------------------------------------------------------------------------------------------------------


def test_word_errors_are_measured_recorded_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    seen = []

    def word_errors(model, batches, max_cuts):
        seen.append((model.training, max_cuts, len(list(batches))))
        return 3, 10, 6

    class Searched(fake_run.FakeRecipe):
        def build_metric(self):
            return WordErrorMetric(word_errors, self.options, num_ranks=self.world_size)

    assert fake_run.run(tmp_path, recipe=Searched, valid_wer_interval=2, valid_wer_cuts=8) == 0
    assert seen == [(False, 8, 2)]
    got = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "wer"]
    assert [(r["epoch"], r["wer"], r["errors"], r["cuts"]) for r in got] == [(2, 30.0, 3, 6)]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_word_errors_of_the_program(prepared, tmp_path, capfd):
    assert train(prepared, tmp_path / "a", "--max-steps", "1000", "--valid-wer-cuts", "1") == 0
    got = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if r["type"] == "wer"]
    assert [r["epoch"] for r in got] == [1, 2] and all(r["words"] == 3 and r["cuts"] == 1 for r in got)
    assert "greedy search on 1 validation cuts: %WER" in capfd.readouterr().err
    assert train(prepared, tmp_path / "b", "--valid-wer-interval", "0", "--num-epochs", "1") == 0
    assert not [r for r in read_metrics(tmp_path / "b" / "metrics.jsonl") if r["type"] == "wer"]
    assert numbered(tmp_path / "b", "epoch")


def test_greedy_errors_are_the_edit_distance():
    from asr_core.decoding.validation_wer import GreedyErrors
    from asr_core.models import ModelOptions, build_model
    from asr_core.utils.options import defaults_of, from_params

    torch.manual_seed(0)
    model = build_model(
        from_params(
            ModelOptions, {**defaults_of(ModelOptions), **TINY, "use_ctc": True, "use_transducer": False}
        ),
        7,
    ).eval()
    sup = {
        "text": ["a b", "c"],
        "start_frame": torch.zeros(2, dtype=torch.int32),
        "num_frames": torch.tensor([80, 50]),
    }
    measure = GreedyErrors(lambda tokens: "a x", lambda text: text)
    assert measure(model, [{"inputs": torch.randn(2, 80, 80), "supervisions": sup}], 5) == (1 + 2, 3, 2)
    assert measure(model, [{"inputs": torch.randn(2, 80, 80), "supervisions": sup}], 1) == (1, 2, 1)

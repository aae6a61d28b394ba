"""A run that was killed, interrupted or damaged ends like one that never was."""

import json
import signal
import subprocess
import sys

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import read_whole
from asr_core.utils.errors import ProcessLost, UserError
from asr_core.utils.lock import hold_folder


def start(exp_dir, *attempts):
    return subprocess.run(
        [sys.executable, fake_run.__file__, str(exp_dir), *attempts],
        env=fake_run.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    exp_dir = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    assert fake_run.run(exp_dir) == 0
    return exp_dir


def assert_same_run(exp_dir, whole):
    assert records(exp_dir) == records(whole)
    a, b = read_whole(exp_dir / "epoch-3.pt"), read_whole(whole / "epoch-3.pt")
    assert a.get("ema_updates") == b.get("ema_updates")
    for key in ("model", "model_avg", *(["model_ema"] if "model_ema" in b else [])):
        assert all(torch.equal(a[key][name], b[key][name]) for name in b[key])
    for index, state in b["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(a["optimizer"]["state"][index][name]), torch.as_tensor(value)
            ), name


def test_the_undisturbed_run_learns_and_writes_its_files(whole):
    got = records(whole)
    train = [r["loss"] for r in got if r["type"] == "train"]
    assert len(train) == 3 * fake_run.BATCHES
    valid = {r["batch_idx_train"]: r["loss"] for r in got if r["type"] == "valid"}  # of unchanged levels
    assert list(valid) == [8, 12, 16, 24, 32, 36] and valid[36] < 0.9 * valid[8]
    assert [r["epoch"] for r in got if r["type"] == "epoch"] == [1, 2, 3]
    assert [n for n, _ in numbered(whole, "checkpoint")] == [35, 30, 25, 20, 15, 10, 5]
    assert (whole / "best-valid-loss.pt").samefile(whole / "epoch-3.pt")


def test_the_losses_are_drawn(whole):
    pytest.importorskip("matplotlib")
    assert (whole / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_killed_at_any_moment_and_started_again_it_ends_the_same(whole, tmp_path):
    attempts = [
        "die_at=3",
        "die_in_save=checkpoint-10",
        "die_at=14",
        "die_in_save=epoch-2",
        "die_at=32",
        "",
        "",
    ]
    done = start(tmp_path, *attempts)
    assert done.stdout.strip() == "[-9, -9, -9, -9, -9, 0, 0]", done.stderr
    assert done.stderr.count("Continuing from") == 5 and "This run is finished" in done.stderr
    assert_same_run(tmp_path, whole)
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint_of_that_step(whole, tmp_path, signum):
    for step in (7, 13, 30):
        assert fake_run.run(tmp_path, die_at=step, die_signal=int(signum)) == 128 + signum
        assert (
            tmp_path / f"checkpoint-{step - 1}.pt"
        ).is_file()  # the signal came before the step's batch was handed over
    assert fake_run.run(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_a_signal_during_validation_loses_nothing(whole, tmp_path):
    assert fake_run.run(tmp_path, signal_in_validation=1) == 143
    assert read_whole(tmp_path / "checkpoint-8.pt")["train_state"]["validation_due"]
    assert (
        fake_run.run(tmp_path, start_batch=8, valid_interval=1000, signal_in_validation=1) == 143
    )  # the one that is due
    assert fake_run.run(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_max_steps_stops_and_continues(whole, tmp_path):
    assert fake_run.run(tmp_path, max_steps=13) == 0
    assert records(tmp_path)[-1]["batch_idx_train"] == 13
    assert fake_run.run(tmp_path, max_steps=13) == 0  # finished: nothing happens
    assert fake_run.run(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_a_damaged_checkpoint_is_named_and_passed_over(whole, tmp_path, caplog):
    assert fake_run.run(tmp_path, max_steps=22) == 0
    cut, flipped = tmp_path / "checkpoint-22.pt", tmp_path / "checkpoint-20.pt"
    cut.write_bytes(cut.read_bytes()[:9000])
    data = bytearray(flipped.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(
        byte ^ 0xFF for byte in data[middle : middle + 200]
    )  # more than the padding between entries
    flipped.write_bytes(data)
    assert fake_run.run(tmp_path) == 0
    assert f"passed over: {cut} is damaged" in caplog.text and f"; {flipped} is damaged" in caplog.text
    assert_same_run(tmp_path, whole)


ADAM = dict(
    optim="adam",
    schedule="noam",
    base_lr=0.01,
    adam_betas="0.9,0.98",
    l2=1e-4,
    clip_grad_norm=1.0,
    ema_decay=0.9,
)


@pytest.mark.parametrize(
    "more", [{}, dict(schedule="piecewise", lr_pieces="2:1e-3,7:1e-2:linear", lr_unit="epoch", epoch_split=4)]
)
def test_adam_with_averages_continues_exactly(tmp_path, more):
    options = {**ADAM, **more, "valid_with_ema": True, "accum_grad": 2, "keep_last_k": 9}
    assert fake_run.run(tmp_path / "whole", **options) == 0
    for steps in (3, 7, 11):
        assert fake_run.run(tmp_path / "parts", max_steps=steps, **options) == 0
    assert fake_run.run(tmp_path / "parts", **options) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    content = read_whole(tmp_path / "parts" / "epoch-3.pt")
    assert content["ema_updates"] == 18 and content["model_ema"]["out.weight"].dtype == torch.float64


def test_what_another_optimizer_or_schedule_left_is_refused(tmp_path):
    assert fake_run.run(tmp_path, max_steps=3, **ADAM) == 0
    for changes, message in (
        (
            dict(optim="scaled_adam"),
            "checkpoint-3.pt is of a run with --optimizer adam, which --optimizer scaled_adam cannot "
            "continue",
        ),
        (dict(optim="adamw"), "--optimizer adam, which --optimizer adamw cannot continue"),
        (
            dict(schedule="hold"),
            "checkpoint-3.pt is of a run with --schedule noam, which --schedule hold cannot continue",
        ),
        (dict(feature_type="log-mel"), "--feature-type fbank, which --feature-type log-mel cannot continue"),
    ):
        with pytest.raises(UserError, match=message):
            fake_run.run(tmp_path, **{**ADAM, **changes})


def test_an_average_may_begin_later(tmp_path, caplog):
    caplog.set_level("INFO")
    assert fake_run.run(tmp_path, max_steps=3, **{**ADAM, "ema_decay": 0.0}) == 0
    assert "model_ema" not in read_whole(tmp_path / "checkpoint-3.pt")
    assert fake_run.run(tmp_path, max_steps=4, **ADAM) == 0
    content = read_whole(tmp_path / "checkpoint-4.pt")
    assert (
        "has no exponential average of the weights: it starts here" in caplog.text
        and content["ema_updates"] == 1
    )
    assert torch.equal(content["model_ema"]["out.weight"].float(), content["model"]["out.weight"])


def test_a_lower_rate_holds_from_the_first_step_on(tmp_path):
    """The momenta of ScaledAdam do not carry on with the higher rate."""
    assert fake_run.run(tmp_path, max_steps=7) == 0
    assert fake_run.run(tmp_path, max_steps=8, base_lr=1e-9) == 0
    before, after = (read_whole(tmp_path / f"checkpoint-{n}.pt")["model"] for n in (7, 8))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-7)


def test_start_epoch_and_start_batch_rewind(whole, tmp_path):
    assert fake_run.run(tmp_path) == 0
    assert fake_run.run(tmp_path, start_epoch=2) == 0
    assert_same_run(tmp_path, whole)
    assert fake_run.run(tmp_path, start_batch=30) == 0
    assert_same_run(tmp_path, whole)


def test_a_full_disk_while_saving_leaves_earlier_files_whole(whole, tmp_path, monkeypatch):
    save = torch.save

    def full(content, path):
        if "checkpoint-20" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="no space left on the disk while writing .*checkpoint-20.pt"):
            fake_run.run(tmp_path)
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "checkpoint-20.pt").exists()
    assert fake_run.run(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path):
    (tmp_path / "epoch-1.pt").write_bytes((whole / "epoch-1.pt").read_bytes())

    class Wider(fake_run.FakeRecipe):
        def build_model(self):
            model = super().build_model()
            model.out = torch.nn.Linear(16, fake_run.VOCAB + 1)
            return model

    with pytest.raises(UserError, match=r"does not fit this model \(size mismatch for out.bias.*\): give"):
        fake_run.run(tmp_path, recipe=Wider, seed=43)  # a seed is no reason
    (tmp_path / "epoch-1.pt").unlink()
    assert fake_run.run(tmp_path, max_steps=2, joiner_dim=24) == 0
    with pytest.raises(UserError, match=r"does not fit this model \(joiner_dim was 24, is 16\): give"):
        fake_run.run(tmp_path, recipe=Wider, seed=43, joiner_dim=16)


def test_checkpoints_have_the_reference_keys(whole):
    content = read_whole(whole / "checkpoint-35.pt")
    state = "model model_avg optimizer scheduler grad_scaler sampler"
    values = "average_period batch_idx_train cur_epoch best_valid_loss base_lr"
    assert {*state.split(), *values.split()} <= set(content)
    assert content["scheduler"] == {"epoch": 2, "batch": 35} and content["cur_epoch"] == 3
    assert content["model_avg"]["out.weight"].dtype == torch.float64
    assert read_whole(whole / "epoch-2.pt")["cur_epoch"] == 2
    assert not any(word in json.dumps(content, default=str).lower() for word in ("hostname", "ip address"))


def test_a_checkpoint_of_the_reference_continues_at_the_epoch(whole, tmp_path):
    content = read_whole(whole / "epoch-2.pt")
    for ours in ("train_state", "random_states", "module_state"):
        del content[ours]
    content["model_avg"] = {name: value.float() for name, value in content["model_avg"].items()}
    torch.save(content, tmp_path / "epoch-2.pt")
    assert fake_run.run(tmp_path) == 0
    got = records(tmp_path)
    assert got[0]["epoch"] == 3 and got[0]["batch_idx_train"] == 25
    assert read_whole(tmp_path / "epoch-3.pt")["batch_idx_train"] == 36


@pytest.mark.parametrize("where", ["train", "valid"])
def test_the_loss_of_a_loader_process_loses_no_step(whole, tmp_path, where):
    class Lost(fake_run.FakeRecipe):
        def build_datamodule(self):
            data = super().build_datamodule()
            name = f"{where}_dataloader"
            load = getattr(data, name)

            def losing(*args):
                for batch in load(*args):
                    if where == "valid" or batch["batch_idx"] == 6:
                        raise ProcessLost("a loader process was killed")
                    yield batch

            setattr(data, name, losing)
            return data

    step = 6 if where == "train" else 8
    with pytest.raises(UserError, match=f"loader process was killed; the same command .* after batch {step}"):
        fake_run.run(tmp_path, recipe=Lost)
    assert (tmp_path / f"checkpoint-{step}.pt").is_file()
    assert fake_run.run(tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_a_run_that_lost_its_folder_writes_nothing_more(tmp_path):
    class Suspended(fake_run.FakeRecipe):
        def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
            if batch_idx_train == 7:
                lock = json.loads((tmp_path / ".lock").read_text())
                (tmp_path / ".lock").write_text(json.dumps({**lock, "token": "of a successor"}))
            return super().compute_loss(model, batch, batch_idx_train, reduction)

    with pytest.raises(UserError, match="was taken over by training, process .* writes nothing more"):
        fake_run.run(tmp_path, recipe=Suspended)
    assert [r["batch_idx_train"] for r in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [5]
    assert json.loads((tmp_path / ".lock").read_text())["token"] == "of a successor"


def test_two_runs_do_not_share_a_folder(tmp_path):
    with hold_folder(tmp_path, "training", "choose another --exp-dir"):
        lines = start(tmp_path, "").stderr
    assert f"{tmp_path} is in use by training, process " in lines
    assert "wait for its end, or end it, or choose another --exp-dir" in lines
    assert not list(tmp_path.glob("*.pt"))

"""Which checkpoint a run continues from, and what it never overwrites."""

from pathlib import Path

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.models.averaging import select_checkpoints
from asr_core.training.resume import find_start
from asr_core.utils.errors import UserError


def save(path, step, epoch=1, **more):
    """Write a checkpoint of a run that is in ``epoch``, after ``step``."""
    state = {"epoch": epoch, "batches_done": step % 10, "batch_idx_train": step}
    content = {"model": {"w": torch.ones(2)}, "optimizer": {"state": {}}, "batch_idx_train": step}
    torch.save({**content, "train_state": state, **more}, path)


def test_all_checkpoints_damaged_is_an_error(tmp_path):
    for name in ("epoch-1.pt", "checkpoint-9.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
        find_start(tmp_path)
    with pytest.raises(UserError, match="checkpoint-9.pt is damaged"):
        find_start(tmp_path, start_batch=9)
    with pytest.raises(UserError, match="epoch-4.pt, which --start-epoch 5 asks for"):
        find_start(tmp_path, start_epoch=5)


def test_the_checkpoint_that_got_furthest_is_continued(tmp_path, caplog):
    assert find_start(tmp_path) is None
    for name, step, epoch in (("epoch-1", 10, 2), ("epoch-2", 20, 3), ("checkpoint-15", 15, 2)):
        save(tmp_path / f"{name}.pt", step, epoch)
    save(tmp_path / "checkpoint-20.pt", 20, 2, train_state=dict(epoch=2, batches_done=10, batch_idx_train=20))
    assert find_start(tmp_path)[0].name == "epoch-2.pt"
    save(tmp_path / "checkpoint-21.pt", 21, 3)
    path, content = find_start(tmp_path)
    assert path.name == "checkpoint-21.pt" and content["batch_idx_train"] == 21
    assert find_start(tmp_path, start_epoch=2)[0].name == "epoch-1.pt"
    assert find_start(tmp_path, start_epoch=2, start_batch=15)[0].name == "checkpoint-15.pt"
    assert not caplog.text  # nothing was passed over
    torch.save({"weights": {}}, tmp_path / "checkpoint-22.pt")
    assert find_start(tmp_path)[0].name == "checkpoint-21.pt"  # one without a model is no checkpoint


def test_weights_under_the_name_of_an_epoch_are_passed_over(tmp_path, caplog):
    torch.save({"model": {"w": torch.ones(2)}, "vocab_size": 3}, tmp_path / "pretrained.pt")
    (tmp_path / "epoch-999.pt").symlink_to("pretrained.pt")
    assert find_start(tmp_path, last_epoch=30) is None  # a new run, which overwrites nothing
    save(tmp_path / "epoch-3.pt", 30, 4)
    save(tmp_path / "checkpoint-25.pt", 25, 3)  # behind the newer epoch file
    caplog.clear()
    assert find_start(tmp_path, last_epoch=30)[0].name == "epoch-3.pt"
    (line,) = caplog.text.splitlines()
    assert f"passed over: {tmp_path / 'epoch-999.pt'} holds no training state" in line
    for start in (dict(start_epoch=1000), dict(start_batch=7)):
        if "start_batch" in start:
            (tmp_path / "checkpoint-7.pt").symlink_to("pretrained.pt")
        with pytest.raises(UserError, match="holds no training state: start from its weights by finetune"):
            find_start(tmp_path, **start)
    chosen = select_checkpoints(tmp_path, epoch=999, iter=0, avg=1, use_averaged_model=False)
    assert chosen == [tmp_path / "epoch-999.pt"]  # decoding takes it by that name


def test_a_link_to_an_epoch_counts_by_its_content(tmp_path, caplog):
    save(tmp_path / "epoch-2.pt", 20, 3)
    (tmp_path / "epoch-999.pt").symlink_to("epoch-2.pt")
    save(tmp_path / "checkpoint-25.pt", 25, 3)
    assert find_start(tmp_path, last_epoch=30)[0].name == "checkpoint-25.pt"
    assert f"the name of {tmp_path / 'epoch-999.pt'}, which is at epoch 2" in caplog.text


def test_weights_of_others_are_not_overwritten(tmp_path):
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "epoch-5.pt")
    with pytest.raises(UserError, match="epoch-5.pt holds weights without .* overwrite them after epoch 5"):
        find_start(tmp_path, last_epoch=30)
    save(tmp_path / "epoch-2.pt", 20, 3)
    with pytest.raises(UserError, match="epoch-5.pt holds weights without"):
        find_start(tmp_path, last_epoch=5)
    assert find_start(tmp_path, last_epoch=4)[0].name == "epoch-2.pt"
    save(tmp_path / "epoch-7.pt", 70, 8)
    assert find_start(tmp_path, last_epoch=30)[0].name == "epoch-7.pt"


@pytest.mark.parametrize("part", ["model", "model_avg", "model_ema"])
def test_checkpoints_that_are_not_finite_are_passed_over(tmp_path, caplog, part):
    save(tmp_path / "epoch-1.pt", 10, 2)
    save(tmp_path / "checkpoint-15.pt", 15, 2, **{part: {"encoder.w": torch.tensor([1.0, float("nan")])}})
    assert find_start(tmp_path)[0].name == "epoch-1.pt"
    why = f"checkpoint-15.pt cannot be continued from, since its {part} is not finite (encoder.w)"
    assert why in caplog.text
    with pytest.raises(UserError) as raised:
        find_start(tmp_path, start_batch=15)
    assert why in str(raised.value)
    (tmp_path / "epoch-1.pt").unlink()
    with pytest.raises(UserError) as raised:
        find_start(tmp_path)
    assert why in str(raised.value)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    save(tmp_path / "epoch-1.pt", 10, 2)
    save(tmp_path / "epoch-2.pt", 20, 3)
    opened = Path.open

    def refusing(path, *args):
        if path.name == "epoch-2.pt":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setattr(torch, "load", lambda path, **kwargs: refusing(Path(path)))
    with pytest.raises(
        UserError, match="cannot read .*epoch-2.pt: Permission denied; it need not be damaged"
    ):
        find_start(tmp_path)  # rather than go back behind it and overwrite it


@pytest.mark.parametrize("state", [[], {"epoch": "x"}, {"epoch": 1, "batches_done": None}, "text"])
def test_counters_that_make_no_sense_are_damage(tmp_path, caplog, state):
    save(tmp_path / "epoch-1.pt", 10, 2)
    save(tmp_path / "epoch-2.pt", 20, 3, train_state=state)
    assert find_start(tmp_path)[0].name == "epoch-1.pt"
    assert "epoch-2.pt is damaged: its counters make no sense" in caplog.text


def test_the_same_command_continues_after_the_link_of_the_tutorial(tmp_path):
    assert fake_run.run(tmp_path, num_epochs=2) == 0
    content = torch.load(tmp_path / "epoch-2.pt")
    before = (tmp_path / "epoch-1.pt").read_bytes()
    torch.save({"model": content["model"]}, tmp_path / "pretrained.pt")
    (tmp_path / "epoch-999.pt").symlink_to("pretrained.pt")
    assert fake_run.run(tmp_path) == 0
    steps = [r["batch_idx_train"] for r in records(tmp_path) if r["type"] == "train"]
    assert steps == list(range(1, 3 * fake_run.BATCHES + 1))
    assert (tmp_path / "epoch-1.pt").read_bytes() == before


def test_garbage_among_the_records_does_not_stop_a_run(tmp_path):
    assert fake_run.run(tmp_path, max_steps=15) == 0
    want = records(tmp_path)
    for name in ("metrics.jsonl", "bad-cuts.jsonl", "params.json", "tokens.txt"):
        with open(tmp_path / name, "ab") as f:
            f.write(b'\xff\x00garbage\n{"type": "tra')
    (tmp_path / "log").write_bytes(b"no folder")
    (tmp_path / "tensorboard").write_bytes(b"no folder")
    assert fake_run.run(tmp_path, tensorboard=True) == 0
    got = records(tmp_path)
    assert got[: len(want)] == want
    assert [r["epoch"] for r in got if r["type"] == "epoch"] == [1, 2, 3]

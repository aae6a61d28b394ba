"""Files of checkpoints: which are found, kept, refused."""

import os

import fake_run
import pytest
import torch

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import copy_checkpoint, find_start, remove_leftovers, remove_old
from asr_core.utils.errors import UserError


def test_keep_last_k_leaves_epoch_files_alone(tmp_path):
    assert fake_run.run(tmp_path, keep_last_k=2, save_every_n=4, num_epochs=2) == 0
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [24, 20]
    assert [n for n, _ in numbered(tmp_path, "epoch")] == [2, 1]


def test_all_checkpoints_damaged_is_an_error(tmp_path):
    for name in ("epoch-1.pt", "checkpoint-9.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
        find_start(tmp_path)
    with pytest.raises(UserError, match="checkpoint-9.pt is damaged"):
        find_start(tmp_path, start_batch=9)
    with pytest.raises(UserError, match="epoch-4.pt, which --start-epoch 5 asks for"):
        find_start(tmp_path, start_epoch=5)


def save(path, step):
    torch.save({"model": {}, "batch_idx_train": step}, path)


def test_the_checkpoint_that_got_furthest_is_continued(tmp_path):
    assert find_start(tmp_path) is None
    for name, step in (("epoch-1", 10), ("epoch-2", 20), ("checkpoint-15", 15)):
        save(tmp_path / f"{name}.pt", step)
    assert find_start(tmp_path)[0].name == "epoch-2.pt"
    save(tmp_path / "checkpoint-21.pt", 21)
    path, content = find_start(tmp_path)
    assert path.name == "checkpoint-21.pt" and content["batch_idx_train"] == 21
    assert find_start(tmp_path, start_epoch=2)[0].name == "epoch-1.pt"
    assert find_start(tmp_path, start_epoch=2, start_batch=15)[0].name == "checkpoint-15.pt"
    torch.save({"weights": {}}, tmp_path / "checkpoint-22.pt")
    assert find_start(tmp_path)[0].name == "checkpoint-21.pt"  # one without a model is no checkpoint


def test_old_checkpoints_go_but_not_those_of_a_future_that_was_left(tmp_path):
    for step in (5, 10, 15, 20, 100):
        save(tmp_path / f"checkpoint-{step}.pt", step)
    remove_old(tmp_path, keep=2, newest=20)
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [100, 20, 15]
    (tmp_path / ".checkpoint-20.pt.tmp123").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint-{n}.pt" for n in (100, 15, 20)]


@pytest.mark.parametrize("has_links", [True, False])
def test_the_best_is_a_link_or_a_copy(tmp_path, monkeypatch, has_links):
    def no_link(source, target):
        raise OSError("not supported")

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
    source, target = tmp_path / "epoch-1.pt", tmp_path / "best-valid-loss.pt"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    copy_checkpoint(source, target)
    assert target.read_bytes() == b"new" and target.samefile(source) == has_links

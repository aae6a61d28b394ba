"""Files of checkpoints: which are found, kept, refused."""

import os

import fake_run
import pytest
import torch

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import copy_checkpoint, remove_old


def test_keep_last_k_leaves_epoch_files_alone(tmp_path):
    assert fake_run.run(tmp_path, keep_last_k=2, save_every_n=4, num_epochs=2) == 0
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [24, 20]
    assert [n for n, _ in numbered(tmp_path, "epoch")] == [2, 1]


def save(path, step):
    torch.save({"model": {}, "batch_idx_train": step}, path)


def test_old_checkpoints_go_but_not_those_of_a_future_that_was_left(tmp_path):
    for step in (5, 10, 15, 20, 100):
        save(tmp_path / f"checkpoint-{step}.pt", step)
    remove_old(tmp_path, keep=2, newest=20)
    assert [n for n, _ in numbered(tmp_path, "checkpoint")] == [100, 20, 15]
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

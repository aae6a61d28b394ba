"""Files of checkpoints: which are found, kept, refused."""

import fake_run
import pytest

from asr_core.models.averaging import numbered
from asr_core.training.checkpoint import find_start
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

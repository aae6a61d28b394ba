"""Files of records: what a killed run leaves, full disks, TensorBoard that is missing."""

import json
import sys

import pytest

from asr_core.training.reporting.writers import JsonLines, Scalars, read_metrics
from asr_core.utils.errors import UserError


def test_lines_of_lost_steps_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a')
    assert len(read_metrics(path)) == 3
    file = JsonLines(path, 2, 9)
    file.append({"a": 9, "b": float("inf"), "c": float("nan"), "d": "é"})
    assert file.lines == 3
    assert read_metrics(path) == [{"a": 1}, {"a": 2}, {"a": 9, "b": None, "c": None, "d": "é"}]


def test_a_file_with_fewer_lines_than_were_saved_goes_on_where_it_ends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert JsonLines(path, 7, 9).lines == 0 and not path.exists()
    path.write_text('{"a": 1}\n')
    file = JsonLines(path, 7, 9)
    file.append_all([{"a": 2}, {"a": 3}])
    file.append_all([])
    assert file.lines == 3 and [r["a"] for r in read_metrics(path)] == [1, 2, 3]


def lines_up_to(step):
    return [json.dumps({"type": "train", "batch_idx_train": i}) for i in range(1, step + 1)]


@pytest.mark.parametrize(
    "garbage", [b"\xff\xfe\x00garbage", b'{"type": "train", "batch_i', b"", b"[1]", b"7", b"[" * 100000]
)
@pytest.mark.parametrize("replaced", [False, True])
def test_damaged_lines_are_moved_aside_and_the_others_kept(tmp_path, caplog, garbage, replaced):
    path = tmp_path / "metrics.jsonl"
    lines = [line.encode() for line in lines_up_to(6)]
    lines[2 : 2 + replaced] = [garbage]
    path.write_bytes(b"\n".join(lines) + b"\n")
    file = JsonLines(path, 4, 4)  # a checkpoint after step 4
    left = [1, 2, 4] if replaced else [1, 2, 3, 4]
    assert [r["batch_idx_train"] for r in read_metrics(path)] == left and file.lines == len(left)
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == garbage + b"\n"
    assert caplog.text.count(f"{path}: 1 damaged lines, moved to") == 1
    file.append({"batch_idx_train": 5})
    assert [r["batch_idx_train"] for r in read_metrics(path)] == [*left, 5]


def test_characters_that_end_lines_elsewhere_do_not_end_records(tmp_path):
    file = JsonLines(tmp_path / "bad-cuts.jsonl", 0, 0)
    file.append_all([{"text": "a\u2028b\x85c\x0bd\re"}, {"text": "f"}])
    again = JsonLines(tmp_path / "bad-cuts.jsonl", 2, 0)
    assert again.lines == 2 and [r["text"] for r in read_metrics(again.path)][1] == "f"


def test_a_file_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    file = JsonLines(tmp_path / "missing" / "metrics.jsonl", 0, 0)
    with pytest.raises(UserError, match="cannot write .*metrics.jsonl: No such file.*same command again"):
        file.append({"a": 1})
    assert file.lines == 0


def test_scalars_are_optional(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    Scalars(None, first_step=1).add("train/", {"loss": 1.0}, 1)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    missing = Scalars(tmp_path, first_step=1)
    missing.add("train/", {"loss": 1.0}, 1)
    missing.close()
    assert "TensorBoard is not installed" in caplog.text and not list(tmp_path.iterdir())


def test_a_disk_error_ends_the_scalars_and_not_the_run(caplog):
    class Full:
        def add_scalar(self, name, value, step):
            raise OSError(28, "No space left on device")

    scalars = Scalars(None, first_step=1)
    scalars._writer = Full()
    scalars.add("train/", {"loss": 1.0}, 1)
    scalars.add("train/", {"loss": 1.0}, 2)
    assert caplog.text.count("no more scalars for TensorBoard") == 1

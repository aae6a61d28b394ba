"""Files are written whole or not at all, whatever goes wrong while they are written."""

import errno
import gzip
import os
import stat

import pytest

from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, open_binary, write_text_atomic


def only(folder, *names):
    """Whether these files, and no temporary ones, are in a folder."""
    return sorted(os.listdir(folder)) == sorted(names)


def test_a_file_appears_with_its_whole_content_and_usual_permissions(tmp_path):
    with atomic_path(tmp_path / "deep/a.jsonl.gz") as tmp:
        assert tmp.name.endswith(".jsonl.gz") and tmp.parent == tmp_path / "deep"
        tmp.write_bytes(b"half")
        assert not (tmp_path / "deep/a.jsonl.gz").exists()
        tmp.write_bytes(b"whole")
    assert (tmp_path / "deep/a.jsonl.gz").read_bytes() == b"whole" and only(tmp_path / "deep", "a.jsonl.gz")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "deep/a.jsonl.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), RuntimeError("of a bug")])
def test_an_exception_leaves_the_earlier_file_and_no_other(tmp_path, error):
    write_text_atomic(tmp_path / "a", "earlier")
    with pytest.raises(type(error)) as e:
        with atomic_path(tmp_path / "a") as tmp:
            tmp.write_text("new")
            raise error
    assert e.value is error and (tmp_path / "a").read_text() == "earlier" and only(tmp_path, "a")


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(errno.ENOSPC, "full"), "no space left on the disk while writing"),
        (OSError(errno.EDQUOT, "quota"), "no space left on the disk while writing"),
        (RuntimeError("PytorchStreamWriter failed: file write failed"), "no space left on the disk"),
        (OSError(errno.EIO, "Input/output error"), "cannot write .*: Input/output error"),
    ],
)
def test_a_full_disk_is_the_users_matter(tmp_path, error, message):
    write_text_atomic(tmp_path / "a", "earlier")
    with pytest.raises(UserError, match=message):
        with atomic_path(tmp_path / "a"):
            raise error
    assert (tmp_path / "a").read_text() == "earlier" and only(tmp_path, "a")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/file/a"):
        write_text_atomic(tmp_path / "file/a", "text")


def test_compressed_files_are_opened_by_their_name(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    for name in ("a", "a.gz"):
        with open_binary(tmp_path / name) as f:
            assert list(f) == [b"one\n", b"two\n"]


def test_a_pipe_or_device_is_written_to_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text_atomic(pipe, "one\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.read(reader, 10) == b"one\n"
    os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="Is a directory"), atomic_path(tmp_path):
        pytest.fail("the block ran")

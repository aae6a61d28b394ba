"""Downloads are whole or not at all."""

import gzip

import pytest

from asr_core.bin import download


def test_download_unzips(tmp_path, capsys):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"content"))
    url = (tmp_path / "x.gz").as_uri()
    download.main(["--url", url, "--output", str(tmp_path / "y"), "--gunzip", "1"])
    assert (tmp_path / "y").read_bytes() == b"content" and not (tmp_path / "y.gz").exists()
    download.main(["--url", url, "--output", str(tmp_path / "z.gz")])
    assert (tmp_path / "z.gz").read_bytes() == (tmp_path / "x.gz").read_bytes()
    with pytest.raises(SystemExit):
        download.main(["--url", (tmp_path / "none").as_uri(), "--output", str(tmp_path / "n")])
    assert "cannot download" in capsys.readouterr().err and not (tmp_path / "n").exists()


def test_a_compressed_file_that_is_there_is_used_and_kept(tmp_path):
    (tmp_path / "y.gz").write_bytes(gzip.compress(b"content"))
    download.main(["--url", "file:///none", "--output", str(tmp_path / "y"), "--gunzip", "1"])
    assert (tmp_path / "y").read_bytes() == b"content" and (tmp_path / "y.gz").is_file()


def test_a_damaged_file_leaves_nothing(tmp_path, capsys):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"content" * 1000)[:-20])
    with pytest.raises(SystemExit) as e:
        download.main(
            ["--url", (tmp_path / "x.gz").as_uri(), "--output", str(tmp_path / "y"), "--gunzip", "1"]
        )
    assert e.value.code == 1 and "is damaged" in capsys.readouterr().err and not (tmp_path / "y").exists()

"""Checksums of archives: what torch loads although it is damaged."""

import io
import logging
import zipfile

import pytest
import torch

from asr_core.export.torchscript import open_torchscript
from asr_core.lm.archive import LmArchive
from asr_core.models.checkpoint import load_checkpoint_file
from asr_core.utils.archives import check_archive
from asr_core.utils.errors import UserError


def archive(**kwargs):
    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.arange(100.0)}}, buffer, **kwargs)
    return bytearray(buffer.getvalue())


def test_a_flipped_bit_of_a_weight_is_found(tmp_path):
    data, path = archive(), tmp_path / "m.pt"
    place = data.index(torch.arange(100.0).numpy().tobytes()) + 42
    data[place] ^= 1
    path.write_bytes(data)
    assert not torch.load(path)["model"]["weight"].equal(torch.arange(100.0))  # torch does not notice
    with pytest.raises(UserError, match=r"m\.pt is damaged: copy or download it again.*data/0"):
        load_checkpoint_file(path)
    with pytest.raises(UserError, match=r"m\.pt is damaged.*data/0"):
        LmArchive.load(path)


def test_a_flipped_bit_of_torchscript_is_found(tmp_path):
    path = tmp_path / "m.pt"
    layer = torch.nn.Linear(10, 10)
    torch.jit.save(torch.jit.script(layer), path)
    data = bytearray(path.read_bytes())
    data[data.index(layer.weight.detach().numpy().tobytes()) + 42] ^= 1
    path.write_bytes(data)
    assert not torch.jit.load(path).weight.equal(layer.weight)
    with pytest.raises(UserError, match=r"m\.pt is damaged"):
        open_torchscript(path)


def test_files_without_checksums_load(tmp_path, caplog):
    legacy, path = archive(_use_new_zipfile_serialization=False), tmp_path / "m.pt"
    path.write_bytes(legacy)
    assert load_checkpoint_file(path)["model"]["weight"].equal(torch.arange(100.0))
    torch.serialization.set_crc32_options(False)
    try:
        path.write_bytes(archive())
    finally:
        torch.serialization.set_crc32_options(True)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint_file(path)["model"]["weight"].equal(torch.arange(100.0))
    assert "m.pt was written without checksums" in caplog.text


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_and_names_are_checked(tmp_path, compression):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("m/a", b"0" * 1000)
    check_archive(path)
    whole = path.read_bytes()
    place = whole.index(b"PK\x01\x02") + 24  # the size in the directory
    for size in (999, 1001, 1 << 20):
        path.write_bytes(whole[:place] + size.to_bytes(4, "little") + whole[place + 4 :])
        with pytest.raises(UserError, match="damaged"):
            check_archive(path)
    path.write_bytes(whole[: place + 14] + b"\x10" + whole[place + 15 :])  # called a folder
    with pytest.raises(UserError, match="wrong size or kind of m/a"):
        check_archive(path)
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("m/a", b"0")
        z.writestr("m/A", b"1")
    with pytest.raises(UserError, match="m/a is in it twice"):
        check_archive(path)
    path.write_bytes(b"no archive")
    check_archive(path)
    with pytest.raises(UserError, match="damaged"):
        check_archive(path, required=True)
    with pytest.raises(UserError, match="cannot read .*none.pt"):
        check_archive(tmp_path / "none.pt")

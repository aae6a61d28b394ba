"""The kept files, unpacked once for the tests of this folder."""

import kept_files
import made_up_corpus
import pytest
import torch


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the kept files, unpacked, and the recordings that they were made with."""
    folder = tmp_path_factory.mktemp("kept")
    kept_files.unpack(folder)
    made_up_corpus.write_corpus(folder / "data")
    return folder


@pytest.fixture(autouse=True)
def inside(work, monkeypatch):
    """Tests run in that folder: the kept files name others relative to it."""
    monkeypatch.chdir(work)
    torch.set_num_threads(1)

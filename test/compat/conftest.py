"""Lets the tests of this folder import what they share."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import kept  # noqa: E402  (found in this folder)
import made_up  # noqa: E402


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the kept files, unpacked, and the recordings that they were made with."""
    folder = tmp_path_factory.mktemp("kept")
    kept.unpack(folder)
    made_up.write_corpus(folder / "data")
    return folder


@pytest.fixture(autouse=True)
def inside(work, monkeypatch):
    """Tests run in that folder: the kept files name others relative to it."""
    monkeypatch.chdir(work)
    torch.set_num_threads(1)

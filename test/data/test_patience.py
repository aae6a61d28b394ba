"""A share that goes away for a moment costs a little time and no data; a missing file costs none."""

import errno
import os

import numpy as np
import pytest
import soundfile
from batches import data_options, ids
from lhotse import CutSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import compute_fbank, prepare_noise, prepare_tsv
from asr_core.data import noise, patience
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.patience import PAUSES, patiently, sources_of


class Clock:
    """Time that passes only by sleeping; ``then`` happens after the given sleeps."""

    def __init__(self):
        self.now, self.slept, self.then = 1000.0, [], {}

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)
        self.then.get(len(self.slept), lambda: None)()

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(patience, "_waits", patience._Waits())
    return clock


@pytest.fixture
def share(tmp_path):
    """A folder with two recordings that are listed in two manifests, one elsewhere."""
    folder = tmp_path / "share"
    folder.mkdir()
    cuts = []
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", tone(1.0), 16000)
        cuts.append(make_cut(name, folder / f"{name}.wav", 16000, 16000, "one"))
    write_cuts(cuts, tmp_path / "manifests" / "toy_cuts_test.jsonl.gz")
    return folder


def read_of(path):
    return patiently(lambda: open(path, "rb").read(), lambda: [str(path)])


def away(folder):
    """Take a folder away; return what brings it back."""
    folder.rename(f"{folder}.away")
    return lambda: os.rename(f"{folder}.away", folder)


def test_a_folder_that_comes_back_is_waited_for(share, clock, caplog):
    clock.then[2] = away(share)
    assert len(read_of(share / "a.wav")) > 32000
    assert clock.slept == list(PAUSES[:2]) and len(caplog.records) == 1
    assert f"{share}: No such file or directory: waiting up to 10 s" in caplog.text


def test_a_share_that_is_not_mounted_is_an_empty_folder(share, clock, caplog):
    back = away(share)
    share.mkdir()

    def mount():
        share.rmdir()
        back()

    clock.then[1] = mount
    assert read_of(share / "a.wav") and f"{share} is empty" in caplog.text


def test_files_that_miss_alone_and_other_faults_cost_no_waiting(share, clock, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_of(share / "c.wav")
    with pytest.raises(IsADirectoryError):
        read_of(share)
    with pytest.raises(ValueError):
        patiently(lambda: int("x"), lambda: [str(share / "a.wav")])
    assert clock.slept == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN])
def test_faults_of_the_network_are_waited_for(code, share, clock, caplog):
    faults = [OSError(code, os.strerror(code), "a.wav")] * 2

    def read():
        if faults:
            raise RuntimeError("wrapped, as readers do") from faults.pop()
        return 1

    assert patiently(read, lambda: [str(share / "a.wav")]) == 1
    assert clock.slept == list(PAUSES[:2]) and os.strerror(code) in caplog.text


def test_waiting_in_vain_is_bounded(share, clock):
    back = away(share)
    for _ in range(50):
        with pytest.raises(FileNotFoundError):
            read_of(share / "a.wav")
    assert clock.slept == list(PAUSES)  # once for all
    clock.now += 600
    clock.then[len(PAUSES) + 1] = back
    assert read_of(share / "a.wav") and clock.slept[len(PAUSES) :] == [PAUSES[0]]


def test_the_sources_of_a_cut_are_those_that_it_is_read_from(feature_cuts):
    first, noise = list(read_cuts(feature_cuts))[:2]
    assert list(sources_of(first, stored=True)) == [first.features.storage_path]
    assert list(sources_of(first, stored=False)) == [first.recording.sources[0].source]
    assert list(sources_of(first.mix(noise), stored=False)) == [
        cut.recording.sources[0].source for cut in (first, noise)
    ]
    first.features.storage_type, first.features.storage_key = "lilcom_files", "ab/abc.llc"
    assert list(sources_of(first, stored=True)) == [f"{first.features.storage_path}/ab/abc.llc"]


@pytest.mark.parametrize("strategy", ["PrecomputedFeatures", "OnTheFlyFeatures"])
def test_batches_lose_nothing_when_a_share_goes_away(share, tmp_path, clock, strategy):
    compute_fbank.main(
        ["--src-dir", str(tmp_path / "manifests"), "--output-dir", str(tmp_path / "fbank"), "--prefix", "toy"]
        + ["--parts", "test", "--nj", "1"]
    )
    cuts = CutSet.from_jsonl_lazy(tmp_path / "fbank" / "toy_cuts_test.jsonl.gz")
    data = share if strategy == "OnTheFlyFeatures" else tmp_path / "fbank" / "toy_feats_test"
    module = AsrDataModule(data_options(input_strategy=strategy))
    clock.then[3] = away(data)
    (batch,) = module.test_dataloader(cuts)
    assert sorted(ids(batch)) == ["a", "b"] and module.dropped.total == 0
    assert clock.slept == list(PAUSES[:3])


def test_preparation_loses_nothing_when_a_share_goes_away(share, tmp_path, clock):
    clock.then[1] = away(share)
    options = ["--src-dir", str(tmp_path / "manifests"), "--prefix", "toy", "--parts", "test", "--nj", "1"]
    compute_fbank.main([*options, "--output-dir", str(tmp_path / "fbank"), "--max-unreadable", "0"])
    (tmp_path / "test.tsv").write_text("share/a.wav\tone\nshare/b.wav\ttwo\n")
    clock.then[2] = away(share)
    prepare_tsv.main(
        [
            "--test",
            str(tmp_path / "test.tsv"),
            "--output-dir",
            str(tmp_path),
            "--nj",
            "1",
            "--max-unreadable",
            "0",
        ]
    )
    assert len(read_cuts(tmp_path / "custom_cuts_test.jsonl.gz")) == 2
    assert clock.slept == [PAUSES[0]] * 2


def test_noise_that_goes_away_after_it_was_listed_is_waited_for(share, tmp_path, clock, monkeypatch):
    real = noise.read_audio

    def read(path):
        if not clock.then:
            clock.then[1] = away(share)
        return real(path)

    monkeypatch.setattr(noise, "read_audio", read)
    prepare_noise.main(
        ["--noise-dir", str(share), "--output", str(tmp_path / "m.jsonl.gz"), "--max-unreadable", "0"]
    )
    assert len(read_cuts(tmp_path / "m.jsonl.gz")) == 2 and clock.slept == [PAUSES[0]]


def test_features_are_opened_again_after_a_fault(feature_cuts, monkeypatch, clock):
    first = next(iter(read_cuts(feature_cuts)))
    want, opened, real = first.load_features(), [], os.pread

    def faulty(*args):
        opened.append(args[0])
        if len(opened) == 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*args)

    monkeypatch.setattr("asr_core.data.storage.os.pread", faulty)
    again = patiently(first.load_features, lambda: sources_of(first, stored=True))
    assert np.array_equal(again, want) and clock.slept == [PAUSES[0]]

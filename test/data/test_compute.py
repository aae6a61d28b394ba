"""Features of a part of a corpus: the same by any number of processes, resumed, stored and read
back.
"""

import os

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import compute_fbank
from asr_core.data import compute
from asr_core.data.compute import compute_features
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.manifest_checks import CheckOptions, check_cuts
from asr_core.data.options import DataOptions
from asr_core.data.storage import FlatFeaturesReader, FlatFeaturesWriter, _OpenFiles
from asr_core.utils.errors import UserError


def test_storage_reads_back_whole_and_in_part(tmp_path):
    matrices = [
        np.random.default_rng(i).normal(0, 5, (n, 7)).astype(np.float32) for i, n in enumerate((3, 10, 1))
    ]
    with FlatFeaturesWriter(str(tmp_path / "f")) as writer:
        keys = [writer.write("x", m) for m in matrices]
    reader = FlatFeaturesReader(str(tmp_path / "f"))
    for key, matrix in zip(keys, matrices):
        assert np.allclose(reader.read(key), matrix, rtol=1e-3)
    assert np.allclose(reader.read(keys[1], 2, 6), matrices[1][2:6], rtol=1e-3)
    assert np.allclose(reader.read(keys[1], 8, 12), matrices[1][8:], rtol=1e-3)
    data = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(data[:-20])
    with pytest.raises(UserError, match="cut short"):
        reader.read(keys[1])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("asr_core.data.storage._open_files", _OpenFiles(limit=3))
    keys = []
    for i in range(10):
        with FlatFeaturesWriter(str(tmp_path / f"{i}")) as writer:
            keys.append(writer.write("x", np.full((4, 2), i, dtype=np.float32)))
    before = len(os.listdir("/proc/self/fd"))
    for i in (*range(10), *range(10)):
        assert (FlatFeaturesReader(str(tmp_path / f"{i}")).read(keys[i]) == i).all()
        assert len(os.listdir("/proc/self/fd")) <= before + 3


def computed(source, target, **kwargs):
    """The cuts of a call of compute_features, and what it returned."""
    done = compute_features(source, target, DataOptions(), progress=False, **kwargs)
    return read_cuts(target), done


def same_features(a, b):
    return [c.id for c in a] == [c.id for c in b] and all(
        np.array_equal(x.load_features(), y.load_features()) for x, y in zip(a, b)
    )


def test_processes_change_nothing_and_speeds_are_added(audio_cuts, tmp_path, monkeypatch):
    monkeypatch.setattr("asr_core.data.compute._SHARD_CUTS", 15)
    one, done = computed(audio_cuts, tmp_path / "1" / "t_cuts_a.jsonl.gz", nj=1, speed_perturb=True)
    two, _ = computed(audio_cuts, tmp_path / "2" / "t_cuts_a.jsonl.gz", nj=2, speed_perturb=True)
    assert len(one) == 120 == done.cuts and abs(done.seconds - sum(c.duration for c in one)) < 1e-6
    assert same_features(one, two)
    assert all(len(c.load_features()) == c.num_frames for c in one)
    stored = read_cuts(tmp_path / "2" / "t_cuts_a.jsonl.gz")
    assert check_cuts(stored, CheckOptions(read_data=True)).problems == {}
    assert {p.suffix for p in (tmp_path / "1/t_feats_a").glob("0*")} == {".f16"}


def test_an_interrupted_call_is_continued(audio_cuts, tmp_path, monkeypatch):
    monkeypatch.setattr("asr_core.data.compute._SHARD_CUTS", 10)
    whole, _ = computed(audio_cuts, tmp_path / "1" / "t_cuts_a.jsonl.gz")
    target = tmp_path / "2" / "t_cuts_a.jsonl.gz"
    shard, calls = compute._compute_shard, []

    def dies_at_the_third(job):
        calls.append(job.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return shard(job)

    monkeypatch.setattr(compute, "_compute_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        computed(audio_cuts, target)
    assert not target.exists()
    rest, done = computed(audio_cuts, target)
    assert calls == [0, 1, 2, 2, 3] and done.cuts == 40 and same_features(whole, rest)
    target.unlink()
    computed(audio_cuts, target, speed_perturb=True)
    assert len(calls) == 5 + 12  # other settings start anew


def test_features_of_another_program_are_not_removed(audio_cuts, tmp_path):
    (tmp_path / "t_feats_a").mkdir()
    (tmp_path / "t_feats_a/feats-0.lca").write_bytes(b"x")
    with pytest.raises(UserError, match=r"features of another program \(feats-0.lca\)"):
        computed(audio_cuts, tmp_path / "t_cuts_a.jsonl.gz")
    assert (tmp_path / "t_feats_a/feats-0.lca").is_file()


def test_a_dask_cluster_computes_the_same(audio_cuts, tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="pip install 'dask[distributed]'")
    here, _ = computed(audio_cuts, tmp_path / "1" / "toy_cuts_train.jsonl.gz")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        arguments = [
            "--src-dir",
            str(audio_cuts.parent),
            "--output-dir",
            str(tmp_path / "2"),
            "--prefix",
            "toy",
            "--parts",
            "train",
        ]
        compute_fbank.main([*arguments, "--dask-scheduler", cluster.scheduler_address])
    assert same_features(here, read_cuts(tmp_path / "2" / "toy_cuts_train.jsonl.gz"))


def test_no_dask_scheduler_is_one_line(audio_cuts, tmp_path, capsys):
    pytest.importorskip("dask.distributed", reason="pip install 'dask[distributed]'")
    arguments = [
        "--src-dir",
        str(audio_cuts.parent),
        "--output-dir",
        str(tmp_path),
        "--prefix",
        "toy",
        "--parts",
        "train",
    ]
    with pytest.raises(SystemExit):
        compute_fbank.main([*arguments, "--dask-scheduler", "nonsense"])
    told = capsys.readouterr().err
    assert "no Dask scheduler answers at nonsense" in told and "Traceback" not in told


def test_recordings_and_supervisions_are_joined(audio_cuts, tmp_path):
    cuts = CutSet.from_file(audio_cuts)
    RecordingSet.from_items(c.recording for c in cuts).to_file(tmp_path / "toy_recordings_dev.jsonl.gz")
    SupervisionSet.from_items(c.supervisions[0] for c in cuts).to_file(
        tmp_path / "toy_supervisions_dev.jsonl.gz"
    )
    folders = ["--src-dir", str(tmp_path), "--output-dir", str(tmp_path / "fbank")]
    compute_fbank.main([*folders, "--prefix", "toy", "--parts", "dev", "--nj", "1"])
    got = read_cuts(tmp_path / "fbank/toy_cuts_dev.jsonl.gz")
    assert [c.supervisions[0].text for c in got] == [c.supervisions[0].text for c in cuts]


def test_unreadable_audio_is_left_out(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    cuts = [make_cut(name, tmp_path / f"{name}.wav", 8000, 16000, "x") for name in ("a", "b", "c")]
    write_cuts(cuts, tmp_path / "in.jsonl.gz")
    kept, done = computed(tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz")
    assert [c.id for c in kept] == ["a"] and done.cuts == 1 and [i for i, _ in done.dropped] == ["b", "c"]
    assert "left out b" in caplog.text
    write_cuts(cuts[1:], tmp_path / "in2.jsonl.gz")
    assert (tmp_path / "out_left_out.txt").read_text().splitlines() == [
        f"{i}: {why}" for i, why in done.dropped
    ]
    with pytest.raises(UserError, match="none of the 2"):
        computed(tmp_path / "in2.jsonl.gz", tmp_path / "out2.jsonl.gz")
    assert not (tmp_path / "out2.jsonl.gz").exists()


def test_left_out_recordings_are_tried_again_and_nothing_moves(tmp_path, monkeypatch, capsys):
    """What is found later is stored behind the rest, which a training may be reading."""
    monkeypatch.setattr("asr_core.data.compute._SHARD_CUTS", 3)
    names = [f"u{i}" for i in range(8)]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", tone(0.5, seed=int(name[1:])), 16000)
    cuts = [make_cut(name, tmp_path / f"{name}.wav", 8000, 16000, "x") for name in names]
    write_cuts(cuts, tmp_path / "m/toy_cuts_train.jsonl.gz")
    options = ["--src-dir", str(tmp_path / "m"), "--prefix", "toy", "--parts", "train", "--nj", "1"]
    options += ["--perturb-speed", "1"]
    compute_fbank.main([*options, "--output-dir", str(tmp_path / "whole")])
    for name in ("u0", "u4"):
        (tmp_path / f"{name}.wav").rename(tmp_path / f"{name}.away")
    options += ["--output-dir", str(tmp_path / "fbank")]
    target, left_out = tmp_path / "fbank/toy_cuts_train.jsonl.gz", tmp_path / "fbank/toy_left_out_train.txt"
    with pytest.raises(SystemExit):
        compute_fbank.main(options)
    assert "6 of the 24 recordings of " in capsys.readouterr().err and not target.exists()
    options += ["--max-unreadable", "0.3"]
    compute_fbank.main(options)
    assert f"6 left out as unreadable, see {left_out}; the same command" in capsys.readouterr().err
    before = read_cuts(target)
    matrices = [c.load_features() for c in before]
    assert len(before) == 18 and len(left_out.read_text().splitlines()) == 6
    (tmp_path / "u4.away").rename(tmp_path / "u4.wav")
    compute_fbank.main(options)
    assert [line.split(":")[0] for line in left_out.read_text().splitlines()] == [
        "u0",
        "u0_sp0.9",
        "u0_sp1.1",
    ]
    assert all(np.array_equal(c.load_features(), m) for c, m in zip(before, matrices))
    (tmp_path / "u0.away").rename(tmp_path / "u0.wav")
    compute_fbank.main(options)
    assert same_features(read_cuts(target), read_cuts(tmp_path / "whole" / target.name))
    assert not left_out.exists() and {p.suffix for p in (tmp_path / "fbank/toy_feats_train").glob("0*")} == {
        ".f16"
    }
    stamp = target.stat().st_mtime_ns
    compute_fbank.main(options)
    assert target.stat().st_mtime_ns == stamp and "exists; skipped" in capsys.readouterr().err


def test_program_skips_what_exists(audio_cuts, tmp_path, capsys):
    arguments = [
        "--src-dir",
        str(audio_cuts.parent),
        "--output-dir",
        str(tmp_path),
        "--prefix",
        "toy",
        "--parts",
        "train",
        "--nj",
        "1",
    ]
    compute_fbank.main(arguments)
    stamp = (tmp_path / "toy_cuts_train.jsonl.gz").stat().st_mtime_ns
    compute_fbank.main(arguments)
    assert (tmp_path / "toy_cuts_train.jsonl.gz").stat().st_mtime_ns == stamp
    with pytest.raises(SystemExit) as caught:
        compute_fbank.main([*arguments, "--parts", "none"])
    assert caught.value.code == 1 and "toy_cuts_none" in capsys.readouterr().err

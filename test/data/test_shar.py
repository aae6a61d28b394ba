"""Shar: written, resumed after a crash, read at any place, damaged."""

import shutil

import numpy as np
import pytest
from batches import data_options, ids, names, same
from lhotse import CutSet

from asr_core.bin import write_shar
from asr_core.data.corpus import Corpus
from asr_core.data.cut_refs import load_cut
from asr_core.data.manifest import write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.open_cuts import open_shar, shar_record
from asr_core.data.stream import open_stream
from asr_core.utils.errors import UserError


@pytest.fixture(scope="module")
def shar(feature_cuts, tmp_path_factory):
    """The cuts with features as Shar, 6 shards."""
    folder = tmp_path_factory.mktemp("shar") / "train"
    write_shar.main(
        ["--cuts", str(feature_cuts), "--shar-dir", str(folder), "--shard-size", "7", "--nj", "2"]
    )
    return folder


def test_shar_holds_the_same_and_lhotse_reads_it(feature_cuts, shar):
    want = {c.id: c for c in CutSet.from_file(feature_cuts)}
    for got in (
        CutSet.from_shar(in_dir=shar),
        [load_cut(ref) for _, ref in open_stream(open_shar(shar), None).items()],
    ):
        cuts = list(got)
        assert [c.id for c in cuts] == list(want)
        assert all(np.array_equal(c.load_features(), want[c.id].load_features()) for c in cuts)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_shar_resumes_exactly_and_shuffles_shards(shar, workers):
    kwargs = dict(num_workers=workers, enable_spec_aug=False)
    cuts = open_shar(shar)
    whole = list(AsrDataModule(data_options(**kwargs)).train_dataloader(cuts, 1))
    rest = list(AsrDataModule(data_options(**kwargs)).train_dataloader(open_shar(shar), 1, skip_batches=4))
    assert sorted(sum(map(ids, whole), [])) == sorted(c.id for c in cuts)
    assert len(rest) == len(whole) - 4 and all(map(same, whole[4:], rest))
    stream = open_stream(cuts, None, seed=1)
    assert names(stream, 1) == names(stream, 1) != names(stream, 2) and sorted(names(stream, 1)) == sorted(
        names(stream, 2)
    )


def test_ranks_share_shar(shar):
    whole = list(AsrDataModule(data_options()).train_dataloader(open_shar(shar), 1, bucket_run=2))
    parts = [
        list(AsrDataModule(data_options(), rank=r, world_size=2).train_dataloader(open_shar(shar), 1))
        for r in (0, 1)
    ]
    assert all(map(same, parts[0], whole[0::2])) and all(map(same, parts[1], whole[1::2]))
    assert sum(map(len, parts)) == len(whole)


def test_audio_in_shar(audio_cuts, tmp_path):
    write_shar.main(
        ["--cuts", str(audio_cuts), "--shar-dir", str(tmp_path / "s"), "--shard-size", "25", "--nj", "1"]
    )
    want = {c.id: c.load_audio() for c in CutSet.from_file(audio_cuts)}
    stream = open_stream(open_shar(tmp_path / "s"), None)
    for (_, ref), (_, fast) in zip(stream.items(), stream.with_speed(1.1).items()):
        cut = load_cut(ref)
        assert np.abs(cut.load_audio() - want[cut.id]).max() < 1e-4
        assert load_cut(fast).load_audio().shape[1] == pytest.approx(want[cut.id].shape[1] / 1.1, abs=1)


def test_writing_shar_goes_on_after_a_crash(feature_cuts, shar, tmp_path, monkeypatch):
    arguments = [
        "--cuts",
        str(feature_cuts),
        "--shar-dir",
        str(tmp_path / "s"),
        "--shard-size",
        "7",
        "--nj",
        "1",
    ]
    replace, calls = __import__("os").replace, []

    def dies(source, target):
        calls.append(source)
        if len(calls) == 8:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("asr_core.data.shar.os.replace", dies)
    with pytest.raises(SystemExit):
        write_shar.main(arguments)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not complete"):
        open_shar(tmp_path / "s")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("cuts.*")}
    assert 1 <= len(kept) < 6
    write_shar.main(arguments)
    assert (
        all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
        and shar_record(tmp_path / "s").is_file()
    )
    got = [c.id for c in open_shar(tmp_path / "s")]
    assert got == [c.id for c in open_shar(shar)]


def test_writing_shar_removes_nothing_that_it_did_not_write(feature_cuts, tmp_path, capsys):
    arguments = ["--cuts", str(feature_cuts), "--nj", "1", "--shar-dir"]
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/precious").write_text("x")
    with pytest.raises(SystemExit):
        write_shar.main([*arguments, str(tmp_path / "corpora")])
    assert "corpora holds what this program did not write, e.g. precious" in capsys.readouterr().err
    assert (tmp_path / "corpora/precious").is_file()
    for _ in range(2):  # what was removed by hand is written again
        write_shar.main([*arguments, str(tmp_path / "s")])
        assert len(list(open_shar(tmp_path / "s"))) == 40
        __import__("shutil").rmtree(tmp_path / "s")


def test_unreadable_cuts_are_listed_and_too_many_are_refused(audio_cuts, tmp_path, capsys):
    cuts = list(CutSet.from_file(audio_cuts))[:8]
    for i in (1, 6):
        cuts[i].recording.sources[0].source = str(tmp_path / f"later{i}.flac")
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    folder, left_out = tmp_path / "s", tmp_path / "s_left_out.txt"
    arguments = [
        "--cuts",
        str(tmp_path / "c.jsonl.gz"),
        "--shar-dir",
        str(folder),
        "--shard-size",
        "3",
        "--nj",
        "1",
    ]
    with pytest.raises(SystemExit):
        write_shar.main(arguments)
    assert "2 of the 8 recordings of " in capsys.readouterr().err and not left_out.exists()
    with pytest.raises(UserError, match="not complete"):
        open_shar(folder)
    shutil.copy(audio_cuts.parent.parent / "u01.flac", tmp_path / "later1.flac")
    write_shar.main([*arguments, "--max-unreadable", "0.2"])
    assert f"1 cuts left out, see {left_out}; the same command tries them again" in capsys.readouterr().err
    assert left_out.read_text().startswith("u06: unreadable (AudioLoadingError: Error opening ")
    assert [c.id for c in open_shar(folder)] == ["u00", "u01", "u02", "u03", "u04", "u05", "u07"]
    complete = (folder / "cuts.000000.jsonl.gz").stat().st_mtime_ns
    shutil.copy(audio_cuts.parent.parent / "u06.flac", tmp_path / "later6.flac")
    write_shar.main(arguments)
    assert [c.id for c in open_shar(folder)] == [f"u0{i}" for i in range(8)]
    assert (folder / "cuts.000000.jsonl.gz").stat().st_mtime_ns == complete  # it lacked nothing
    assert not left_out.exists() and not list(tmp_path.glob(".s-*"))


def test_a_list_that_is_removed_accepts_what_was_left_out(audio_cuts, tmp_path):
    cuts = list(CutSet.from_file(audio_cuts))[:4]
    cuts[2].recording.sources[0].source = str(tmp_path / "later.flac")
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    arguments = ["--cuts", str(tmp_path / "c.jsonl.gz"), "--shar-dir", str(tmp_path / "s")]
    write_shar.main([*arguments, "--max-unreadable", "0.5"])
    (tmp_path / "s_left_out.txt").unlink()
    write_shar.main(arguments)
    assert [c.id for c in open_shar(tmp_path / "s")] == ["u00", "u01", "u03"]
    assert not list(tmp_path.glob(".s-*"))


def test_a_damaged_shard_costs_its_cuts_alone(shar, tmp_path):
    copy = tmp_path / "train"
    shutil.copytree(shar, copy)
    (copy / "features.000001.tar").write_bytes(b"nonsense" * 200)
    module = AsrDataModule(data_options(enable_spec_aug=False))
    got = sum(map(ids, module.train_dataloader(open_shar(copy), 1)), [])
    assert len(got) == 33
    assert sorted(sum(module.dropped.ids.values(), [])) == [f"u{i:02d}" for i in range(7, 14)]


def test_a_corpus_reads_parts_from_shar_where_they_are(shar, feature_cuts):
    class Toy(Corpus):
        name = "toy"

    params = {"manifest_dir": str(feature_cuts.parent), "shar_dir": str(shar.parent)}
    assert len(list(Toy(params).train_cuts())) == 40
    with pytest.raises(UserError, match="--shar-dir"):
        Toy({**params, "shar_dir": str(shar.parent / "none")}).train_cuts()
    with pytest.raises(UserError, match="toy_cuts_valid"):
        Toy(params).valid_cuts()


@pytest.mark.parametrize("content", [b"one two\n", b"\xfe\xff\x00\x01\n", b"[1]\n"])
def test_a_file_that_is_no_manifest_is_named_before_anything_is_written(content, tmp_path, capsys):
    (tmp_path / "text.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        write_shar.main(["--cuts", str(tmp_path / "text.jsonl"), "--shar-dir", str(tmp_path / "s")])
    assert caught.value.code == 1 and "text.jsonl:1: not a cut in JSON" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()

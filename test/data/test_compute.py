"""Storing features, checking manifests, noise."""

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from asr_core.bin import compute_fbank, prepare_noise
from asr_core.data.compute import compute_features
from asr_core.data.manifest import describe_cuts, make_cut, read_cuts, validate_cuts, write_cuts
from asr_core.data.options import DataOptions
from asr_core.data.storage import FlatFeaturesReader, FlatFeaturesWriter
from asr_core.utils.errors import UserError

from .conftest import tone


def test_storage_reads_back_whole_and_in_part(tmp_path):
    matrices = [np.random.default_rng(i).normal(0, 5, (n, 7)).astype(np.float32) for i, n in enumerate((3, 10, 1))]
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


def test_processes_change_nothing_and_speeds_are_added(audio_cuts, tmp_path):
    one = compute_features(audio_cuts, tmp_path / "1" / "t_cuts_a.jsonl.gz", DataOptions(), nj=1, speed_perturb=True, progress=False)
    two = compute_features(audio_cuts, tmp_path / "2" / "t_cuts_a.jsonl.gz", DataOptions(), nj=2, speed_perturb=True, progress=False)
    assert [c.id for c in one.cuts] == [c.id for c in two.cuts] and len(one.cuts) == 120
    assert all(np.array_equal(a.load_features(), b.load_features()) for a, b in zip(one.cuts, two.cuts))
    assert all(len(c.load_features()) == c.num_frames for c in one.cuts)
    assert not validate_cuts(read_cuts(tmp_path / "2" / "t_cuts_a.jsonl.gz"), read_data=True)


def test_unreadable_audio_is_left_out(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    cuts = [make_cut(name, tmp_path / f"{name}.wav", 8000, 16000, "x") for name in ("a", "b", "c")]
    write_cuts(cuts, tmp_path / "in.jsonl.gz")
    done = compute_features(tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz", DataOptions(), progress=False)
    assert [c.id for c in done.cuts] == ["a"] and [i for i, _ in done.dropped] == ["b", "c"]
    assert "left out b" in caplog.text
    write_cuts(cuts[1:], tmp_path / "in2.jsonl.gz")
    with pytest.raises(UserError, match="none of the 2"):
        compute_features(tmp_path / "in2.jsonl.gz", tmp_path / "out2.jsonl.gz", DataOptions(), progress=False)
    assert not (tmp_path / "out2.jsonl.gz").exists()


def test_program_skips_what_exists(audio_cuts, tmp_path, capsys):
    arguments = ["--src-dir", str(audio_cuts.parent), "--output-dir", str(tmp_path), "--prefix", "toy", "--parts", "train", "--nj", "1"]
    compute_fbank.main(arguments)
    stamp = (tmp_path / "toy_cuts_train.jsonl.gz").stat().st_mtime_ns
    compute_fbank.main(arguments)
    assert (tmp_path / "toy_cuts_train.jsonl.gz").stat().st_mtime_ns == stamp
    with pytest.raises(SystemExit) as caught:
        compute_fbank.main([*arguments, "--parts", "none"])
    assert caught.value.code == 1 and "toy_cuts_none" in capsys.readouterr().err


def test_validation_finds_each_problem(audio_cuts):
    cuts = list(CutSet.from_file(audio_cuts))[:6]
    assert not validate_cuts(cuts)
    cuts[0].supervisions[0].text = " "
    cuts[1].supervisions[0].duration += 1
    cuts[2].supervisions[0].start = 0.1
    cuts[3].supervisions.append(cuts[3].supervisions[0])
    cuts[5].id = cuts[4].id
    problems = validate_cuts(cuts)
    text = " ".join(problems)
    for words in ("no text", "ends 1.000 s after it", "starts at 0.1 s", "2 supervisions", "id comes twice"):
        assert words in text


def test_description(audio_cuts, tmp_path):
    text = describe_cuts(read_cuts(audio_cuts))
    assert "cuts                40" in text and "speakers            3" in text and "100, 10 different" in text
    with pytest.raises(UserError, match="no such manifest"):
        read_cuts(tmp_path / "none.jsonl.gz")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        read_cuts(tmp_path / "bad.jsonl.gz")


def test_noise_windows(tmp_path):
    (tmp_path / "n" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "n" / "deep" / "long.wav", tone(27.0, 8000), 8000)
    soundfile.write(tmp_path / "n" / "short.flac", tone(2.0), 16000)
    prepare_noise.main(["--noise-dir", str(tmp_path / "n"), "--output", str(tmp_path / "musan_cuts.jsonl.gz")])
    cuts = read_cuts(tmp_path / "musan_cuts.jsonl.gz")
    assert [round(c.duration) for c in cuts] == [10, 10, 7, 2]
    assert all(c.sampling_rate == 16000 for c in cuts) and cuts[2].load_audio().shape[1] == 7 * 16000

"""Noise in windows, from a folder or from manifests."""

import pytest
import soundfile
from lhotse import Recording, RecordingSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import prepare_noise


def test_noise_windows(tmp_path):
    (tmp_path / "n" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "n" / "deep" / "long.wav", tone(27.0, 8000), 8000)
    soundfile.write(tmp_path / "n" / "short.flac", tone(2.0), 16000)
    prepare_noise.main(
        ["--noise-dir", str(tmp_path / "n"), "--output", str(tmp_path / "musan_cuts.jsonl.gz")]
    )
    cuts = read_cuts(tmp_path / "musan_cuts.jsonl.gz")
    assert [round(c.duration) for c in cuts] == [10, 10, 7, 2]
    assert all(c.sampling_rate == 16000 for c in cuts) and cuts[2].load_audio().shape[1] == 7 * 16000


def test_noise_from_manifests_leaves_short_recordings_out(tmp_path):
    for name, seconds in (("a", 27.0), ("b", 4.0)):
        soundfile.write(tmp_path / f"{name}.wav", tone(seconds), 16000)
        RecordingSet.from_items([Recording.from_file(tmp_path / f"{name}.wav")]).to_file(
            tmp_path / f"{name}.jsonl.gz"
        )
    output = tmp_path / "musan_cuts.jsonl.gz"
    recordings = f"{tmp_path}/a.jsonl.gz,{tmp_path}/b.jsonl.gz"
    prepare_noise.main(["--recordings", recordings, "--keep-short", "0", "--output", str(output)])
    assert [round(c.duration) for c in read_cuts(output)] == [10, 10, 7]


def test_recordings_that_cannot_be_read_are_left_out(tmp_path, capsys):
    (tmp_path / "n").mkdir()
    (tmp_path / "n/broken.wav").write_bytes(b"RIFF")
    arguments = ["--noise-dir", str(tmp_path / "n"), "--output", str(tmp_path / "m.jsonl.gz")]
    with pytest.raises(SystemExit) as e:
        prepare_noise.main(arguments)
    err = capsys.readouterr().err
    assert e.value.code == 1 and "none of the 1 recordings of " in err and "broken.wav: not readable" in err
    assert not (tmp_path / "m.jsonl.gz").exists()
    soundfile.write(tmp_path / "n/good.wav", tone(6.0), 16000)
    with pytest.raises(SystemExit):
        prepare_noise.main(arguments)
    assert "1 of the 2 recordings of " in (err := capsys.readouterr().err) and "--max-unreadable 0.05" in err
    assert not (tmp_path / "m.jsonl.gz").exists()
    prepare_noise.main([*arguments, "--max-unreadable", "0.5"])
    assert [c.id for c in read_cuts(tmp_path / "m.jsonl.gz")] == ["good-0"]
    assert (tmp_path / "m_left_out.txt").read_text().startswith(f"{tmp_path}/n/broken.wav: ")
    soundfile.write(tmp_path / "n/broken.wav", tone(6.0), 16000)
    prepare_noise.main(arguments)
    assert [c.id for c in read_cuts(tmp_path / "m.jsonl.gz")] == ["broken-0", "good-1"]
    assert not (tmp_path / "m_left_out.txt").exists()


def test_a_folder_without_noise_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        prepare_noise.main(["--noise-dir", str(tmp_path), "--output", str(tmp_path / "m.jsonl.gz")])
    assert e.value.code == 1 and "no usable noise (.flac, .mp3, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--noise-dir", "none"], "--noise-dir: cannot read none: No such file"),
        (["--recordings", "none.jsonl.gz"], "--recordings: cannot read none.jsonl.gz: No such file"),
        (["--noise-dir", ".", "--window", "0"], "--window must be above 0"),
    ],
)
def test_wrong_command_lines(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e:
        prepare_noise.main(options)
    assert e.value.code == 1 and message in capsys.readouterr().err

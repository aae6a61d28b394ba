"""TSV files: reading, and messages about mistakes."""

import pytest
import soundfile
from manifests import read_cuts
from recordings import tone

from asr_core.bin import prepare_tsv
from asr_core.data.tsv import cuts_of_lines, read_tsv
from asr_core.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    soundfile.write(tmp_path / "a b.wav", tone(0.5, 8000), 8000)
    soundfile.write(tmp_path / "c.flac", tone(0.6, 44100), 44100)
    return tmp_path


def write(folder, text, name="list.tsv"):
    path = folder / name
    path.write_bytes(text.encode("utf-8-sig"))
    return path


def test_good_lines(folder):
    path = write(folder, f"a b.wav\t Hello  World \r\n{folder}/c.flac\tÄpfel\n\n")
    lines = read_tsv(path)
    assert [line.text for line in lines] == ["Hello World", "Äpfel"]
    cuts, left_out = cuts_of_lines(lines)
    assert len(left_out) == 0 and [c.id for c in cuts] == ["a_b-1", "c-2"]
    assert [c.sampling_rate for c in cuts] == [16000, 16000]
    assert [c.load_audio().shape[1] for c in cuts] == [8000, 9600]
    assert [line.text for line in read_tsv(path, normalize="upper")] == ["HELLO WORLD", "ÄPFEL"]


@pytest.mark.parametrize(
    "bad, words",
    [
        ("a.wav hello", "0 tabs"),
        ("a.wav\tx\ty", "2 tabs"),
        ("a.wav\t ", "no transcript"),
        ("\thello", "no audio path"),
        ("", "empty line"),
    ],
)
def test_malformed_lines_name_file_and_line(folder, bad, words):
    path = write(folder, f"a b.wav\tone\n{bad}\nc.flac\ttwo\n")
    with pytest.raises(UserError, match=words) as caught:
        read_tsv(path)
    assert f"{path}:2:" in str(caught.value)
    assert [line.number for line in read_tsv(path, on_bad_line="skip")] == [1, 3]


def test_recordings_without_words(folder, tmp_path):
    path = write(folder, "a b.wav\tone\nc.flac\t\n\n")
    with pytest.raises(UserError, match=f"{path}:2: no transcript after the tab; --empty-text keep"):
        read_tsv(path)
    out, text = tmp_path / "out", tmp_path / "text"
    options = ["--train", path, "--output-dir", out, "--transcript", text, "--empty-text", "keep"]
    prepare_tsv.main(list(map(str, options)))
    made = read_cuts(out / "custom_cuts_train.jsonl.gz")
    assert [c.supervisions[0].text for c in made] == ["one", ""] and text.read_text() == "one\n"
    with pytest.raises(UserError, match="0 tabs"):
        read_tsv(write(folder, "a b.wav\n"), keep_empty=True)


def test_unusable_files(folder):
    with pytest.raises(UserError, match="cannot read"):
        read_tsv(folder / "none.tsv")
    with pytest.raises(UserError, match="no usable line"):
        read_tsv(write(folder, "\n"), on_bad_line="skip")
    (folder / "latin.tsv").write_bytes(b"a.wav\t\xe4\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_tsv(folder / "latin.tsv")


def test_unreadable_audio_is_left_out_and_named(folder, caplog):
    (folder / "cut.wav").write_bytes((folder / "a b.wav").read_bytes()[:3000])
    lines = read_tsv(write(folder, "a b.wav\tone\ncut.wav\ttwo\nmissing.wav\tthree\n"))
    cuts, left_out = cuts_of_lines(lines)
    assert len(cuts) == 1 and len(left_out) == 2
    assert "list.tsv:2" in caplog.text and "cut short" in caplog.text and "missing.wav" in caplog.text
    with pytest.raises(UserError, match="no recording can be read"):
        cuts_of_lines(lines[1:])


def test_program_writes_nothing_if_any_file_is_malformed(folder, capsys):
    write(folder, "a b.wav\tone\nc.flac\ttwo\n", "train.tsv")
    write(folder, "c.flac two\n", "dev.tsv")
    out = folder / "manifests"
    arguments = [
        "--train",
        str(folder / "train.tsv"),
        "--valid",
        str(folder / "dev.tsv"),
        "--output-dir",
        str(out),
    ]
    with pytest.raises(SystemExit) as caught:
        prepare_tsv.main(arguments)
    assert caught.value.code == 1 and "dev.tsv:1" in capsys.readouterr().err and not out.exists()
    write(folder, "c.flac\ttwo\n", "dev.tsv")
    prepare_tsv.main([*arguments, "--transcript", str(folder / "text")])
    assert len(read_cuts(out / "custom_cuts_train.jsonl.gz")) == 2
    assert (folder / "text").read_text() == "one\ntwo\n"


def test_recordings_that_are_missing_for_a_moment_are_not_lost_for_good(folder, capsys):
    path = write(folder, "a b.wav\tone\nc.flac\ttwo\n")
    out = folder / "manifests"
    arguments = ["--train", str(path), "--output-dir", str(out)]
    (folder / "c.flac").rename(folder / "away")
    with pytest.raises(SystemExit) as caught:
        prepare_tsv.main(arguments)
    assert caught.value.code == 1 and not out.exists()
    assert "1 of the 2 recordings of" in capsys.readouterr().err
    prepare_tsv.main([*arguments, "--max-unreadable", "0.5"])
    assert "c.flac" in (out / "custom_left_out_train.txt").read_text()
    assert len(read_cuts(out / "custom_cuts_train.jsonl.gz")) == 1
    (folder / "away").rename(folder / "c.flac")
    prepare_tsv.main(arguments)
    assert not (out / "custom_left_out_train.txt").exists()
    assert len(read_cuts(out / "custom_cuts_train.jsonl.gz")) == 2

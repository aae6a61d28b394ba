"""The program that scores transcripts: its tables, files and mistakes."""

import pytest

from asr_core.bin import score


def test_score_program(tmp_path, capsys):
    (tmp_path / "ref").write_text("".join(f"u{i} one two three\n" for i in range(40)))
    (tmp_path / "a").write_text("".join(f"u{i}\tone TWO\n" for i in range(40)))
    (tmp_path / "b").write_text("".join(f"u{i}\tone two three\n" for i in range(40)))
    files = [str(tmp_path / name) for name in ("ref", "a", "b", "errs", "scores")]
    score.main(
        ["--ref", files[0], "--hyp", *files[1:3], "--cer", "1", "--errs", files[3], "--scores", files[4]]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-4:] == ["CER", "%", "right", "%"]
    assert lines[3].split() == [
        "a",
        "40",
        "120",
        "66.67",
        "66.67",
        "..",
        "66.67",
        "40",
        "40",
        "0",
        "72.73",
        "0.00",
    ]
    assert lines[4].split()[3] == "0.00" and lines[5].endswith(
        "-66.67 (95 % interval -66.67 .. -66.67), better with probability 1.000"
    )
    assert (tmp_path / "errs").read_text().startswith("%WER = 66.67") and "40   two -> TWO" in (
        tmp_path / "scores"
    ).read_text()
    score.main(["--ref", files[0], "--hyp", files[1], "--normalize", "lower"])
    assert capsys.readouterr().out.splitlines()[3].split()[3] == "33.33"
    for arguments, message in (
        (["--hyp", files[1]], "give some with --ref"),
        (["--ref", files[0], "--hyp", files[1], "--normalize", "x"], "unknown normalization"),
        (["--ref", files[0], "--hyp", files[1], files[1]], "given twice"),
    ):
        with pytest.raises(SystemExit):
            score.main(arguments)
        assert message in capsys.readouterr().err

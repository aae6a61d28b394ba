"""Checks and statistics of manifests find each problem."""

import gzip

import pytest
import soundfile
from lhotse import CutSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import describe_manifest, validate_manifest
from asr_core.data.manifest import write_cuts
from asr_core.data.manifest_checks import describe_cuts, validate_cuts
from asr_core.utils.errors import UserError


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
    for words in ("no text", "ends 1.000 s after it", "starts at 0.1 s", "2 supervisions", "duplicate id"):
        assert words in text


def test_cuts_without_words_are_fine_on_request(audio_cuts):
    cuts = list(CutSet.from_file(audio_cuts))[:2]
    cuts[0].supervisions[0].text = None
    cuts[1].supervisions.clear()
    assert len(validate_cuts(cuts)) == 2 and not validate_cuts(cuts, keep_empty=True)
    assert "words               0, 0 different" in describe_cuts(cuts)
    assert "words               0, 0 different" in describe_cuts(cuts[1:])


def test_description(audio_cuts, tmp_path):
    text = describe_cuts(read_cuts(audio_cuts))
    assert (
        "cuts                40" in text and "speakers            3" in text and "100, 10 different" in text
    )
    with pytest.raises(UserError, match="no such manifest"):
        read_cuts(tmp_path / "none.jsonl.gz")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        read_cuts(tmp_path / "bad.jsonl.gz")


def write(cuts, path, **changes):
    """Write cuts whose supervisions were changed."""
    for cut in cuts:
        for name, value in changes.items():
            setattr(cut.supervisions[0], name, value)
    write_cuts(cuts, path)
    return str(path)


def test_the_program_ends_with_status_1_and_names_what_is_wrong(audio_cuts, tmp_path, capsys):
    good = str(audio_cuts)
    bad = write(list(CutSet.from_file(audio_cuts))[:5], tmp_path / "bad.jsonl.gz", text="")
    validate_manifest.main([good, "--read-data", "1"])
    with pytest.raises(SystemExit) as e:
        validate_manifest.main([good, bad])
    err = capsys.readouterr().err
    assert e.value.code == 1 and f"{bad}: 5 of 5 cuts are unfit" in err
    assert "5 cuts: no text (u00, u01, u02, ...)" in err


def test_unreadable_data_is_found_only_if_it_is_read(audio_cuts, tmp_path):
    cuts = list(CutSet.from_file(audio_cuts))[:3]
    cuts[0].recording.sources[0].source = str(tmp_path / "none.flac")
    soundfile.write(tmp_path / "short.flac", tone(0.2), 16000)
    cuts[1].recording.sources[0].source = str(tmp_path / "short.flac")
    assert not validate_cuts(cuts)
    problems = validate_cuts(cuts, read_data=True)
    assert sorted(sum(problems.values(), [])) == [cuts[0].id, cuts[1].id]


def test_an_empty_manifest_is_refused(tmp_path, capsys):
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b""))
    for program in (validate_manifest, describe_manifest):
        with pytest.raises(SystemExit) as e:
            program.main([str(tmp_path / "e.jsonl.gz")])
        assert e.value.code == 1 and "no cuts" in capsys.readouterr().err

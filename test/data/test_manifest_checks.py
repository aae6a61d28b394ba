"""Checks and statistics of manifests find each problem."""

import gzip
import os
import shutil

import pytest
import soundfile
from lhotse import CutSet
from lhotse.utils import fastcopy
from manifests import read_cuts
from recordings import tone

from asr_core.bin import describe_manifest, validate_manifest, write_shar
from asr_core.data.manifest import write_cuts
from asr_core.data.manifest_checks import CheckOptions, check_cuts, describe_cuts
from asr_core.utils.errors import UserError


def problems_of(cuts, **kwargs):
    """The ids of unfit cuts by reason, and that all were counted."""
    checked = check_cuts(CutSet.from_cuts(cuts), CheckOptions(**kwargs))
    assert checked.number == len(cuts)
    return checked.problems


def test_validation_finds_each_problem(audio_cuts):
    cuts = list(CutSet.from_file(audio_cuts))[:8]
    assert not problems_of(cuts)
    cuts[0].supervisions[0].text = " "
    cuts[1].supervisions[0].duration += 1
    cuts[2].supervisions[0].start = 0.1
    cuts[2].supervisions[0].duration -= 0.1
    cuts[3].supervisions.append(cuts[3].supervisions[0])
    cuts[5].id = cuts[4].id
    cuts[6].supervisions[0].text = 5
    cuts[7].recording = None
    assert {reason.split(" (")[0]: ids for reason, ids in problems_of(cuts).items()} == {
        "no text": ["u00"],
        "a supervision that ends after the cut": ["u01"],
        "a supervision that begins later than the cut": ["u02"],
        "several supervisions": ["u03"],
        "an id that an earlier cut has": ["u04 again"],
        "a text that is no text": ["u06"],
        "neither features nor audio": ["u07"],
    }


def test_validation_accepts_what_training_accepts(audio_cuts):
    """One table and one tolerance; how short and long cuts may be is a matter of the training."""
    cuts = list(CutSet.from_file(audio_cuts))[:4]
    cuts[0].supervisions[0].duration += 0.015
    cuts[1].supervisions[0].start = 0.015
    cuts[1].supervisions[0].duration -= 0.015
    cuts[2].duration = cuts[2].supervisions[0].duration = 0.02
    first = cuts[3].supervisions[0]
    cuts[3].supervisions = [first.trim(0.2), fastcopy(first, id="b", start=0.2, duration=0.2)]
    assert list(problems_of(cuts).values()) == [["u03"]]
    assert not problems_of(cuts, join_supervisions=True)


def test_features_of_several_sizes_are_named(feature_cuts, tmp_path, capsys):
    cuts = list(CutSet.from_file(feature_cuts))[:6]
    cuts[2].features.num_features = cuts[4].features.num_features = 40
    path = tmp_path / "mixed.jsonl.gz"
    write_cuts(cuts, path)
    with pytest.raises(SystemExit) as e:
        validate_manifest.main([str(path)])
    err = capsys.readouterr().err
    assert "2 cuts: features of another size: prepared with --num-mel-bins 40, not 80 (u02, u04)" in err
    assert e.value.code == 1 and f"{path}: 2 of 6 cuts are unfit" in err


def test_shar_is_checked_like_a_manifest(feature_cuts, tmp_path, capsys):
    folder = tmp_path / "shar"
    write_shar.main(
        ["--cuts", str(feature_cuts), "--shar-dir", str(folder), "--shard-size", "20", "--nj", "1"]
    )
    capsys.readouterr()
    validate_manifest.main([str(folder), "--read-data", "1"])
    describe_manifest.main([str(folder)])
    out, err = capsys.readouterr()
    assert "40 cuts are fine" in err and "cuts                40" in out
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    os.truncate(broken / "features.000001.tar", 20_000)
    with pytest.raises(SystemExit) as e:
        validate_manifest.main([str(broken), "--read-data", "1"])
    err = capsys.readouterr().err
    assert e.value.code == 1 and "20 cuts: unreadable (UserError: cannot read " in err
    assert "features.000001.tar: unexpected end of data" in err and "(u20, u21, u22, ...)" in err


def test_cuts_without_words_are_fine_on_request(audio_cuts):
    cuts = list(CutSet.from_file(audio_cuts))[:2]
    cuts[0].supervisions[0].text = None
    cuts[1].supervisions.clear()
    assert problems_of(cuts) == {"no text": ["u00", "u01"]} and not problems_of(cuts, keep_empty=True)
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
    assert not problems_of(cuts)
    problems = problems_of(cuts, read_data=True)
    assert sorted(sum(problems.values(), [])) == [cuts[0].id, cuts[1].id]


def test_an_empty_manifest_is_refused(tmp_path, capsys):
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b""))
    for program in (validate_manifest, describe_manifest):
        with pytest.raises(SystemExit) as e:
            program.main([str(tmp_path / "e.jsonl.gz")])
        assert e.value.code == 1 and "no cuts" in capsys.readouterr().err

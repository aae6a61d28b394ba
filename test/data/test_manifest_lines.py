"""Manifests as lines of text: joined, shuffled, their transcripts, and damaged ones."""

import gzip

import pytest
from lhotse import CutSet, SupervisionSet
from manifests import read_cuts

from asr_core.bin import combine_manifests, write_transcripts
from asr_core.data import manifest_lines
from asr_core.data.manifest import write_cuts
from asr_core.data.manifest_lines import count_lines
from asr_core.utils.errors import UserError


def test_combining_shuffles_by_seed_alone(audio_cuts, tmp_path):
    ids = [c.id for c in read_cuts(audio_cuts)]
    orders = []
    for name, arguments in {
        "a": [],
        "b": ["--shuffle", "1"],
        "c": ["--shuffle", "1"],
        "d": ["--shuffle", "1", "--seed", "7"],
    }.items():
        output = tmp_path / f"{name}.jsonl.gz"
        combine_manifests.main([str(audio_cuts), str(audio_cuts), "--output", str(output), *arguments])
        orders.append([c.id for c in CutSet.from_jsonl_lazy(output)])
    assert orders[0] == ids + ids and orders[1] == orders[2] != orders[3] and orders[1] != orders[0]
    assert all(sorted(order) == sorted(ids + ids) for order in orders)
    assert (tmp_path / "b.jsonl.gz").read_bytes() == (tmp_path / "c.jsonl.gz").read_bytes()


def test_transcripts_of_one_speed(audio_cuts, tmp_path, capsys):
    cuts = CutSet.from_file(audio_cuts)
    write_cuts([*cuts, *cuts.perturb_speed(0.9)], tmp_path / "c.jsonl.gz")
    SupervisionSet.from_items(c.supervisions[0] for c in cuts).to_file(tmp_path / "s.jsonl.gz")
    want = "".join(f"{c.supervisions[0].text}\n" for c in cuts)
    write_transcripts.main(
        [str(tmp_path / "c.jsonl.gz"), str(tmp_path / "s.jsonl.gz"), "--output", str(tmp_path / "t")]
    )
    assert (tmp_path / "t").read_text() == want + want
    (tmp_path / "bad.jsonl.gz").write_bytes((tmp_path / "c.jsonl.gz").read_bytes()[:-30])
    with pytest.raises(SystemExit):
        write_transcripts.main([str(tmp_path / "bad.jsonl.gz"), "--output", str(tmp_path / "u")])
    assert "is damaged" in capsys.readouterr().err and not (tmp_path / "u").exists()


@pytest.mark.parametrize("shuffle", ["0", "1"])
def test_lines_that_lack_their_end_stay_apart(tmp_path, shuffle):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}')
    (tmp_path / "b.jsonl").write_bytes(b'{"id": 2}\n{"id": 3}')
    inputs = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    combine_manifests.main([*inputs, "--output", str(tmp_path / "c.jsonl.gz"), "--shuffle", shuffle])
    lines = gzip.decompress((tmp_path / "c.jsonl.gz").read_bytes()).decode().splitlines()
    assert sorted(lines) == ['{"id": 1}', '{"id": 2}', '{"id": 3}']


def test_damaged_and_missing_manifests_are_named(audio_cuts, tmp_path, capsys):
    data = audio_cuts.read_bytes()
    half, wrong = tmp_path / "half.jsonl.gz", tmp_path / "wrong.jsonl.gz"
    half.write_bytes(data[: len(data) // 2])
    wrong.write_bytes(b"no gzip")
    for path, message in (
        (half, "is damaged"),
        (wrong, "is damaged"),
        (tmp_path / "none", "no such manifest"),
    ):
        with pytest.raises(UserError, match=f"{path.name}.*{message}|{message}.*{path.name}"):
            count_lines(path)
        with pytest.raises(SystemExit) as e:
            combine_manifests.main([str(audio_cuts), str(path), "--output", str(tmp_path / "out.jsonl.gz")])
        assert e.value.code == 1 and path.name in capsys.readouterr().err
        assert not (tmp_path / "out.jsonl.gz").exists()


def test_no_transcripts_at_all_is_an_error(audio_cuts, tmp_path, capsys):
    write_cuts([c.drop_supervisions() for c in CutSet.from_file(audio_cuts)], tmp_path / "c.jsonl.gz")
    with pytest.raises(SystemExit) as e:
        write_transcripts.main([str(tmp_path / "c.jsonl.gz"), "--output", str(tmp_path / "t")])
    assert e.value.code == 1 and "no transcripts in" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("text", ["5", "true", '["one"]'])
@pytest.mark.parametrize("of_cut", [True, False])
@pytest.mark.parametrize("program", [combine_manifests, write_transcripts])
def test_texts_that_are_no_texts_are_named_in_one_line(tmp_path, capsys, program, text, of_cut):
    segment = f'{{"id": "b", "start": 0.0, "duration": 1.0, "text": {text}}}'
    bad = f'{{"id": "b", "supervisions": [{segment}]}}' if of_cut else segment
    source, target = tmp_path / "a.jsonl", tmp_path / "all.jsonl.gz"
    source.write_text(f'{{"id": "a", "text": "one"}}\n{bad}\n')
    with pytest.raises(SystemExit) as e:
        program.main([str(source), "--output", str(target)])
    why = "put it in quotes, or remove the line"
    assert capsys.readouterr().err == f"error: {source}:2: a text that is no text: {text}, of b; {why}\n"
    assert e.value.code == 1 and not target.exists()


def test_manifests_of_entries_without_id_are_joined(tmp_path):
    source, target = tmp_path / "a.jsonl", tmp_path / "all.jsonl.gz"
    source.write_text('{"recording_id": "a", "num_frames": 3}\n')  # of features
    assert manifest_lines.combine_manifests([source], target) == 1


def test_lines_that_only_look_like_objects_are_not_joined(tmp_path):
    source, target = tmp_path / "a.jsonl", tmp_path / "all.jsonl.gz"
    source.write_text('{"id": "a"}\n{"id": "b", "te}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not an entry of a manifest"):
        manifest_lines.combine_manifests([source], target)
    assert not target.exists()

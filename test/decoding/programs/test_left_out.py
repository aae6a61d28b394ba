"""Test sets of which something, or everything, cannot be decoded."""

import json
import os

import pytest
from decode_programs import CHUNKS, run
from lhotse import CutSet

from asr_core.bin import decode, list_results, streaming_decode, write_shar
from asr_core.data.compute import compute_features
from asr_core.data.manifest import write_cuts
from asr_core.data.manifest_lines import open_lines
from asr_core.data.options import DataOptions


def with_broken(world, tmp_path, broken, again=0):
    """Return a manifest of test-a whose first cuts have no audio, and some come twice."""
    with open_lines(world / "fbank/noise_cuts_a.jsonl.gz") as lines:
        cuts = [json.loads(line) for line in lines]
    for cut in cuts[:broken]:
        cut["recording"]["sources"][0]["source"] = "/nowhere.flac"
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(cut) + "\n" for cut in [*cuts, *cuts[len(cuts) - again :]]))
    return path


def decoded(program, world, causal, tmp_path, path, *options):
    exp = tmp_path / "exp"
    if not exp.exists():
        exp.mkdir()
        for name in ("epoch-1.pt", "tokens.txt"):
            (exp / name).symlink_to(world / f"exp-{causal}" / name)
    run(program, world, causal, "--exp-dir", str(exp), "--test-cuts", f"some={path}", *options)


@pytest.mark.parametrize("program, causal, options", [(decode, False, []), (streaming_decode, True, CHUNKS)])
def test_nothing_decoded_is_a_failure_that_changes_no_file(world, tmp_path, capsys, program, causal, options):
    path = with_broken(world, tmp_path, 0)
    decoded(program, world, causal, tmp_path, path, *options)
    files = {p: p.read_bytes() for p in (tmp_path / "exp").rglob("*-some*.txt")}
    assert len(files) >= 3
    path = with_broken(world, tmp_path, 7)
    capsys.readouterr()
    with pytest.raises(SystemExit) as e:
        decoded(program, world, causal, tmp_path, path, "--max-unreadable", "1", *options)
    assert e.value.code == 1 and "no batch could be made" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "exp").rglob("*-some*.txt")} == files


def test_other_sets_are_scored_although_one_fails(world, tmp_path, capsys):
    path = with_broken(world, tmp_path, 7)
    with pytest.raises(SystemExit):
        decoded(decode, world, False, tmp_path, path, "--test-sets", "some,test-b")
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["test-b"]
    assert err.splitlines()[-1].startswith("error: test set some: test: ")


def test_what_is_left_out_is_in_the_table(world, tmp_path, capsys):
    path = with_broken(world, tmp_path, 1, again=2)
    decoded(decode, world, False, tmp_path, path, "--max-unreadable", "0.5")
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[-2:] == ["left", "out"] and table[3].split()[:2] == ["some", "6"]
    assert table[3].split()[-1] == "3"  # one unreadable, two of an id that came before
    with pytest.raises(SystemExit):
        decoded(decode, world, False, tmp_path, path)
    assert "could not be read, more than --max-unreadable 0.05 of " in capsys.readouterr().err


@pytest.mark.parametrize("words", ["0", "nan"])
def test_a_limit_of_the_error_rate_is_not_kept_by_nothing(tmp_path, words, capsys):
    counts = f"Errors: 0 insertions, 0 deletions, 0 substitutions, over {words} reference words (0 correct)"
    (tmp_path / "errs-test.txt").write_text(f"%WER = 0.00\n{counts}\n")
    with pytest.raises(SystemExit) as e:
        list_results.main([str(tmp_path), "--max-wer", "5"])
    assert e.value.code == 1
    if words == "0":
        assert "nothing was scored" in capsys.readouterr().err


def test_a_truncated_tar_of_shar_costs_its_cuts_alone_and_names_them(world, tmp_path, capsys):
    folder = tmp_path / "shar"
    cuts = ["--cuts", str(world / "fbank/noise_cuts_a.jsonl.gz"), "--shar-dir", str(folder)]
    write_shar.main([*cuts, "--shard-size", "4", "--nj", "1"])
    tar = folder / "recording.000001.tar"
    os.truncate(tar, tar.stat().st_size // 2)
    capsys.readouterr()
    decoded(decode, world, False, tmp_path, folder, "--max-unreadable", "0.5")
    out, err = capsys.readouterr()
    assert out.splitlines()[3].split()[:2] == ["some", "4"] and out.splitlines()[3].split()[-1] == "3"
    assert (
        f"test: 3 cuts dropped: 3 x unreadable (UserError: cannot read {tar}: unexpected end of data" in err
    )
    assert all(name in err for name in ("a-4", "a-5", "a-6")) and "Traceback" not in err
    with pytest.raises(SystemExit) as e:
        decoded(decode, world, False, tmp_path, folder)
    last = capsys.readouterr().err.splitlines()[-1]
    assert e.value.code == 1 and last.startswith("error: test set some: test: ") and "the last, a-" in last


def with_other_features(world, tmp_path, number):
    """Return a manifest of test-a with stored features, of which the first have 40 dimensions."""
    cuts = []
    for bins in (40, 80):
        target = tmp_path / f"mixed_cuts_{bins}.jsonl.gz"
        opts = DataOptions(num_mel_bins=bins)
        compute_features(world / "fbank/noise_cuts_a.jsonl.gz", target, opts, progress=False)
        cuts.append(list(CutSet.from_file(target)))
    write_cuts([*cuts[0][:number], *cuts[1][number:]], tmp_path / "mixed.jsonl.gz")
    return tmp_path / "mixed.jsonl.gz"


def test_features_of_another_size_among_others_are_left_out_by_name(world, tmp_path, capsys):
    stored = ("--on-the-fly-feats", "0")
    path = with_other_features(world, tmp_path, 2)
    decoded(decode, world, False, tmp_path, path, *stored)
    out, err = capsys.readouterr()
    assert out.splitlines()[3].split()[:2] == ["some", "5"] and out.splitlines()[3].split()[-1] == "2"
    reason = "features of another size: prepared with --num-mel-bins 40, not 80"
    assert f"test: 2 cuts dropped: 2 x {reason} (a-0, a-1)" in err
    path = with_other_features(world, tmp_path, 7)
    with pytest.raises(SystemExit) as e:
        decoded(decode, world, False, tmp_path, path, *stored)
    err = capsys.readouterr().err
    assert e.value.code == 1 and f"no batch could be made; dropped: 7 x {reason} (a-0, a-1, a-2, ...)" in err

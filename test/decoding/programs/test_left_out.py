"""Test sets of which something, or everything, cannot be decoded."""

import json

import pytest
from decode_programs import CHUNKS, run

from asr_core.bin import decode, list_results, streaming_decode
from asr_core.data.manifest_lines import open_lines


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

import re

import pytest
from decode_programs import BEAM, CHUNKS, hypotheses, run

from asr_core.bin import decode, streaming_decode


def test_decode_writes_all_files(world, capsys):
    run(decode, world, False)
    folder = world / "exp-False" / "greedy_search"
    suffix = "epoch-1_avg-1_context-2_max-sym-per-frame-1"
    names = {p.name for p in folder.iterdir() if not p.name.startswith("log")}
    assert names == {
        f"{kind}-{name}-{suffix}.txt"
        for kind in ("recogs", "errs", "wer-summary", "scores")
        for name in ("test-a", "test-b")
    }
    assert any(p.name.startswith(f"log-decode-{suffix}-") for p in folder.iterdir())
    recogs = (folder / f"recogs-test-a-{suffix}.txt").read_text().splitlines()
    assert len(recogs) == 14 and re.fullmatch(r"a-0:\tref=\['\w+', '\w+', '\w+'\]", recogs[0])
    assert (folder / f"errs-test-b-{suffix}.txt").read_text().startswith("%WER = ")
    assert re.fullmatch(
        r"settings\tWER\ngreedy_search\t[\d.]+\n", (folder / f"wer-summary-test-b-{suffix}.txt").read_text()
    )
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[3:]] == ["test-a", "test-b"]
    assert table[1].split() == [
        "test",
        "set",
        "utts",
        "words",
        "WER",
        "%",
        "95",
        "%",
        "interval",
        "sub",
        "del",
        "ins",
        "RTF",
        "RTFx",
        "in",
        "all",
        "left",
        "out",
    ]


def test_names_of_beam_search_and_chunks(world):
    run(decode, world, True, *CHUNKS, *BEAM, "--test-sets", "test-b", "--blank-penalty", "0.5")
    folder = world / "exp-True" / "modified_beam_search"
    suffix = "epoch-1_avg-1_chunk-16_left-context-32__modified_beam_search__beam-size-4_blank-penalty-0.5"
    assert (folder / f"recogs-test-b-{suffix}.txt").is_file() and not (
        folder / f"recogs-test-a-{suffix}.txt"
    ).is_file()
    assert "modified_beam_search_beam-size-4\t" in (folder / f"wer-summary-test-b-{suffix}.txt").read_text()


@pytest.mark.parametrize("options", [[], BEAM], ids=["greedy", "beam"])
def test_streaming_decode_equals_simulated(world, options):
    method = options[1] if options else "greedy_search"
    run(decode, world, True, *CHUNKS, *options)
    run(streaming_decode, world, True, *CHUNKS, *options, "--num-decode-streams", "3", "--label", "x")
    key = "num-active-paths-4" if options else "greedy-search"
    exp_dir = world / "exp-True"
    part = "__modified_beam_search__beam-size-4" if options else "_context-2_max-sym-per-frame-1"
    for name in ("test-a", "test-b"):
        simulated = hypotheses(
            exp_dir / method / f"recogs-{name}-epoch-1_avg-1_chunk-16_left-context-32{part}.txt"
        )
        folder = exp_dir / "streaming" / method
        real = hypotheses(folder / f"recogs-{name}_{key}_epoch-1_avg-1_chunk-16_left-context-32-x.txt")
        assert (folder / f"wer-summary_{name}_{key}_epoch-1_avg-1_chunk-16_left-context-32-x.txt").is_file()
        assert real == simulated and sum(map(len, real.values())) > 3


def test_characters(world, capsys):
    run(decode, world, False, "--score-characters", "1", "--test-sets", "test-b")
    recogs = (
        world
        / "exp-False"
        / "greedy_search"
        / "recogs-test-b-epoch-1_avg-1_context-2_max-sym-per-frame-1.txt"
    )
    assert len(recogs.read_text().splitlines()[0].split(", ")) == 6
    assert capsys.readouterr().out.startswith("character error rates")


@pytest.mark.parametrize(
    "program, causal, options, message",
    [
        (decode, False, ["--test-sets", "test-c"], "no test set 'test-c'; there are: test-a, test-b"),
        (
            decode,
            False,
            ["--decoding-method", "magic"],
            "unknown decoding method 'magic'; known: greedy_search, beam_search, modified_beam_search,",
        ),
        (decode, False, ["--epoch", "9"], "epoch-9.pt"),
        (decode, False, ["--beam-size", "0"], "--beam-size"),
        (decode, False, ["--temperature", "inf"], "--temperature must be above 0 and finite"),
        (decode, False, ["--num-mel-bins", "40"], "--num-mel-bins 40: the model was trained with 80"),
        (decode, False, ["--encoder-dim", "64"], "--encoder-dim 64 contradicts"),
        (decode, True, ["--chunk-size", "15", "--left-context-frames", "32"], "cannot be divided"),
        (decode, True, ["--chunk-size", "16,32"], "--chunk-size must be a single integer"),
        (streaming_decode, True, [], "--chunk-size 16,32,64,-1: give one of them"),
        (
            streaming_decode,
            True,
            ["--chunk-size", "-1", "--left-context-frames", "32"],
            "streaming needs a limited",
        ),
        (streaming_decode, False, CHUNKS, "not causal"),
        (streaming_decode, True, [*CHUNKS, "--num-decode-streams", "0"], "--num-decode-streams"),
    ],
)
def test_mistakes_get_one_line(world, capsys, program, causal, options, message):
    with pytest.raises(SystemExit) as stop:
        run(program, world, causal, *options)
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_other_test_cuts(world, capsys):
    for options, sets in (
        (["--test-cuts", "mine=noise_cuts_b.jsonl.gz"], ["mine"]),
        (["--test-sets", "mine,test-b"], ["mine", "test-b"]),
    ):
        run(decode, world, False, "--test-cuts", f"mine={world / 'fbank/noise_cuts_b.jsonl.gz'}", *options)
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]] == sets
    with pytest.raises(SystemExit):
        run(decode, world, False, "--test-cuts", "mine=nowhere.jsonl.gz")
    assert "nowhere.jsonl.gz; prepare them" in capsys.readouterr().err


def test_another_tokenizer_is_refused(world, tmp_path, capsys):
    (tmp_path / "tokens.txt").write_text("<blk> 0\n<sos/eos> 1\n<unk> 2\nA 3\n")
    with pytest.raises(SystemExit):
        run(decode, world, False, "--bpe-model", str(tmp_path / "tokens.txt"))
    assert "has 4 tokens, but the model 12" in capsys.readouterr().err

"""Every method that searches a graph with the CTC head, through ctc_decode.py."""

import json
from types import SimpleNamespace

import pytest
from decode_programs import GRAPH_METHODS, MAIN, hypotheses, run

from asr_core.bin import ctc_decode
from asr_core.decoding.registry import check_head, get_method
from asr_core.utils.errors import UserError


def decode(world, heads, lang, method, *more):
    where = ["--lang-dir", str(lang), "--lm-dir", str(lang), "--test-sets", "test-b"]
    run(ctc_decode, world, heads, "--decoding-method", method, *where, *more)


@pytest.mark.parametrize("method", GRAPH_METHODS)
def test_files_of_each_method(world, heads, lang, method):
    decode(world, heads, lang, method, "--attention-decoder-loss-scale", "0.9")
    part, keys = GRAPH_METHODS[method]
    folder = world / "exp-heads" / method
    for key in keys:
        within = f"-{method}{key}" if key else ""
        found = hypotheses(folder / f"recogs-test-b{within}-{MAIN}{part}.txt")
        assert any(found.values()) and (folder / f"errs-test-b{within}-{MAIN}{part}.txt").is_file()
    assert len(list(folder.glob("recogs-*"))) == len(keys)
    summary = (folder / f"wer-summary-test-b-{MAIN}{part}.txt").read_text().splitlines()[1:]
    assert {line.split("\t")[0] for line in summary} == {method + key for key in keys}


def test_the_arpa_file_serves_as_well_as_the_grammar(world, heads, lang, tmp_path):
    name = world / "exp-heads" / "whole-lattice-rescoring" / f"wer-summary-test-b-{MAIN}.txt"
    decode(world, heads, lang, "whole-lattice-rescoring")
    first = name.read_text()
    name.unlink()
    (tmp_path / "4gram.arpa").write_text((lang / "4-gram.arpa").read_text())
    decode(world, heads, lang, "whole-lattice-rescoring", "--lm-dir", str(tmp_path))
    assert name.read_text() == first


def test_a_model_of_other_words_is_refused(world, heads, lang, tmp_path, capsys):
    (tmp_path / "4gram.arpa").write_text(
        "\\data\\\nngram 1=2\n\n\\1-grams:\n-1.0 </s>\n-0.5 \u2581x\n\n\\end\\\n"
    )
    with pytest.raises(SystemExit):
        decode(world, heads, lang, "whole-lattice-rescoring", "--lm-dir", str(tmp_path))
    assert "4gram.arpa knows none of the words" in capsys.readouterr().err.splitlines()[-1]


def test_the_graphs_weight_is_in_the_names(world, heads, lang):
    decode(world, heads, lang, "nbest", "--hlg-scale", "0.2", "--num-paths", "7")
    assert (
        world / "exp-heads" / "nbest" / f"recogs-test-b-{MAIN}_hlg-scale-0.2_nbest-scale-1.0_num-paths-7.txt"
    ).is_file()


@pytest.mark.parametrize(
    "method, more, message",
    [
        ("1best", ["--lang-dir", "/nowhere"], "HLG.fst.txt: make it with compile_hlg"),
        ("nbest-rescoring", ["--lm-dir", "/nowhere"], "G_4_gram.fst.txt"),
        ("ctc-decoding", ["--max-active-states", "0"], "--max-active-states must be at least 1"),
        ("ctc-decoding", ["--output-beam", "0"], "--output-beam must be above 0"),
        ("ctc-decoding", ["--graph-backend", "k2"], "k2 is not installed"),
    ],
)
def test_what_is_missing_gets_one_line(world, heads, lang, capsys, monkeypatch, method, more, message):
    monkeypatch.setitem(__import__("sys").modules, "k2", None)
    with pytest.raises(SystemExit):
        decode(world, heads, lang, method, *more)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


@pytest.mark.parametrize(
    "method, missing",
    [("1best", "no CTC head"), ("attention-decoder-rescoring-no-ngram", "no attention decoder")],
)
def test_models_without_the_heads(method, missing):
    model = SimpleNamespace(use_ctc=method != "1best", use_transducer=True, use_attention_decoder=False)
    with pytest.raises(UserError, match=f"the model has {missing}"):
        check_head(model, get_method(method))


def test_the_programs_defaults_are_no_choices(world, heads, lang, capsys):
    decode(world, heads, lang, "ctc-greedy-search", "--hlg-scale", "0.5")
    assert "ctc-greedy-search does not use --lm-dir, --hlg-scale\n" in capsys.readouterr().err


def test_times_and_lists_of_a_graph_search(world, heads, lang):
    decode(world, heads, lang, "1best", "--write-nbest", "3", "--write-timestamps", "1")
    folder = world / "exp-heads" / "1best"
    found = hypotheses(folder / f"recogs-test-b-{MAIN}.txt")
    lists = [json.loads(line) for line in (folder / f"nbest-test-b-{MAIN}.jsonl").read_text().splitlines()]
    times = [
        json.loads(line) for line in (folder / f"timestamps-test-b-{MAIN}.jsonl").read_text().splitlines()
    ]
    for written, timed in zip(lists, times):
        words = found[written["id"]]
        assert 1 < len(written["nbest"]) <= 3 and written["nbest"][0]["text"].split() == words
        scores = [hyp["log_prob"] for hyp in written["nbest"]]
        assert scores == sorted(scores, reverse=True)
        assert [word["w"] for word in timed["words"]] == words and timed["timestamps"] == sorted(
            timed["timestamps"]
        )
        assert len(timed["timestamps"]) == sum(2 if word == "PAIR" else 1 for word in words) > 0

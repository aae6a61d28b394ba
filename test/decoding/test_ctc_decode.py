"""Every method that searches a graph with the CTC head, through ctc_decode.py."""

import json
from types import SimpleNamespace

import pytest
import torch
from test_programs import Noise, hypotheses, run, world  # noqa: F401
from tiny import OPTIONS, PIECES, tiny_model

from asr_core.bin import compile_hlg, ctc_decode
from asr_core.decoding.methods import graph as graph_methods
from asr_core.decoding.registry import check_head, get_method
from asr_core.lm.grammar_fst import write_openfst_text
from asr_core.lm.lexicon import add_disambig_symbols, disambig_symbols, write_graphs
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import format_symbols, read_symbols, words_table
from asr_core.models.options import ModelOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of

HEADS = dict(
    use_ctc=True,
    use_attention_decoder=True,
    attention_decoder_dim=16,
    attention_decoder_num_layers=1,
    attention_decoder_attention_dim=16,
    attention_decoder_num_heads=2,
    attention_decoder_feedforward_dim=32,
)
MAIN = "epoch-1_avg-1"
SCALES = {
    "LM_SCALES": (0.1, 1.0, 2.0),
    "ATTENTION_SCALES": (0.01, 1.0, 5.0),
    "MORE_ATTENTION_SCALES": (0.01, 1.0, 5.0, 9.0),
}
DRAWN = "_nbest-scale-1.0_num-paths-100"
# What file names have behind MAIN, and the names of the results.
EXPECTED = {
    "ctc-decoding": ("", [""]),
    "1best": ("", [""]),
    "nbest": (DRAWN, [""]),
    "nbest-oracle": (DRAWN, [""]),
    "nbest-rescoring": (DRAWN, [f"_lm_scale_{s}" for s in SCALES["LM_SCALES"]]),
    "whole-lattice-rescoring": ("", [f"_lm_scale_{s}" for s in SCALES["LM_SCALES"]]),
    "attention-decoder-rescoring-no-ngram": (
        DRAWN,
        [f"_attention_scale_{s}" for s in SCALES["MORE_ATTENTION_SCALES"]],
    ),
    "attention-decoder-rescoring-with-ngram": (
        DRAWN,
        [
            f"_ngram_lm_scale_{n}_attention_scale_{a}"
            for n in SCALES["ATTENTION_SCALES"]
            for a in SCALES["ATTENTION_SCALES"]
        ],
    ),
    "ctc-prefix-beam-search-attention-decoder-rescoring": (
        "__ctc-prefix-beam-search-attention-decoder-rescoring__beam-size-8",
        [f"_beam-size-8_attention_scale_{s}" for s in SCALES["MORE_ATTENTION_SCALES"]],
    ),
}


@pytest.fixture(scope="module")
def heads(world):  # noqa: F811
    """A run whose model has the heads of CTC and of an attention decoder."""
    model = tiny_model(False, **HEADS)
    record = dict(
        vocab_size=len(PIECES),
        feature_dim=80,
        num_mel_bins=80,
        sample_rate=16000,
        blank_id=0,
        subsampling_factor=4,
    )
    (world / "exp-heads").mkdir()
    torch.save(
        {
            "model": model.state_dict(),
            **record_of(from_params(ModelOptions, {**OPTIONS, **HEADS})),
            **record,
        },
        world / "exp-heads/epoch-1.pt",
    )
    (world / "exp-heads/tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    return "heads"


@pytest.fixture(scope="module")
def lang(tmp_path_factory):
    """A lang folder whose words are one or two pieces, HLG, and a word 4-gram."""
    pytest.importorskip("kaldifst")
    root = tmp_path_factory.mktemp("lang")
    lexicon = [(f"W{i}", [PIECES[3 + i]]) for i in range(9)] + [("PAIR", [PIECES[4], PIECES[5]])]
    disambiguated, most = add_disambig_symbols(lexicon)
    (root / "tokens.txt").write_text(format_symbols([*PIECES, *disambig_symbols(most)]))
    (root / "words.txt").write_text(format_symbols(words_table(word for word, _ in lexicon)))
    tokens, words = read_symbols(root / "tokens.txt"), read_symbols(root / "words.txt")
    write_graphs(root, lexicon, disambiguated, tokens, words)
    unigrams = "".join(f"-1.0 {word} -0.1\n" for word in ["<s>", "</s>", *(word for word, _ in lexicon)])
    (root / "4-gram.arpa").write_text(
        f"\\data\\\nngram 1=12\nngram 2=1\nngram 3=1\nngram 4=1\n\n\\1-grams:\n{unigrams}\n\\2-grams:\n-0.3 W5 W2 -0.2\n\n"
        "\\3-grams:\n-0.2 W5 W2 W5 -0.1\n\n\\4-grams:\n-0.1 W5 W2 W5 W2\n\n\\end\\\n"
    )
    write_openfst_text(NgramLm.from_arpa(root / "4-gram.arpa", words), root / "G_4_gram.fst.txt", words)
    compile_hlg.main(argv=["--lang-dir", str(root), "--lm", "G_4_gram", "--lm-dir", str(root)])
    return root


@pytest.fixture(autouse=True)
def few_scales(monkeypatch):
    """Scoring hundreds of results takes its time; a few of each will do."""
    sizes = [len(getattr(graph_methods, name)) for name in SCALES]
    assert sizes == [20, 24, 28]
    for name, scales in SCALES.items():
        assert set(scales) <= set(getattr(graph_methods, name))
        monkeypatch.setattr(graph_methods, name, scales)


def decode(world, heads, lang, method, *more):  # noqa: F811
    where = ["--lang-dir", str(lang), "--lm-dir", str(lang), "--test-sets", "test-b"]
    run(ctc_decode, world, heads, "--decoding-method", method, *where, *more)


@pytest.mark.parametrize("method", EXPECTED)
def test_files_of_each_method(world, heads, lang, method):  # noqa: F811
    decode(world, heads, lang, method, "--attention-decoder-loss-scale", "0.9")
    part, keys = EXPECTED[method]
    folder = world / "exp-heads" / method
    for key in keys:
        within = f"-{method}{key}" if key else ""
        found = hypotheses(folder / f"recogs-test-b{within}-{MAIN}{part}.txt")
        assert any(found.values()) and (folder / f"errs-test-b{within}-{MAIN}{part}.txt").is_file()
    assert len(list(folder.glob("recogs-*"))) == len(keys)
    summary = (folder / f"wer-summary-test-b-{MAIN}{part}.txt").read_text().splitlines()[1:]
    assert {line.split("\t")[0] for line in summary} == {method + key for key in keys}


def test_the_arpa_file_serves_as_well_as_the_grammar(world, heads, lang, tmp_path):  # noqa: F811
    name = world / "exp-heads" / "whole-lattice-rescoring" / f"wer-summary-test-b-{MAIN}.txt"
    decode(world, heads, lang, "whole-lattice-rescoring")
    first = name.read_text()
    name.unlink()
    (tmp_path / "4gram.arpa").write_text((lang / "4-gram.arpa").read_text())
    decode(world, heads, lang, "whole-lattice-rescoring", "--lm-dir", str(tmp_path))
    assert name.read_text() == first


def test_a_model_of_other_words_is_refused(world, heads, lang, tmp_path, capsys):  # noqa: F811
    (tmp_path / "4gram.arpa").write_text(
        "\\data\\\nngram 1=2\n\n\\1-grams:\n-1.0 </s>\n-0.5 \u2581x\n\n\\end\\\n"
    )
    with pytest.raises(SystemExit):
        decode(world, heads, lang, "whole-lattice-rescoring", "--lm-dir", str(tmp_path))
    assert "4gram.arpa knows none of the words" in capsys.readouterr().err.splitlines()[-1]


def test_the_graphs_weight_is_in_the_names(world, heads, lang):  # noqa: F811
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
def test_what_is_missing_gets_one_line(world, heads, lang, capsys, monkeypatch, method, more, message):  # noqa: F811
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


def test_the_programs_defaults_are_no_choices(world, heads, lang, capsys):  # noqa: F811
    decode(world, heads, lang, "ctc-greedy-search", "--hlg-scale", "0.5")
    assert "ctc-greedy-search does not use --lm-dir, --hlg-scale\n" in capsys.readouterr().err


def test_times_and_lists_of_a_graph_search(world, heads, lang):  # noqa: F811
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

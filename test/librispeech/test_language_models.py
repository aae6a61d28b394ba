"""Stages 6 to 9 of LibriSpeech's prepare.sh: lexica, n-gram models, data of neural models, graphs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from librispeech_recipe import lay_out, run_prepare

from asr_core.decoding.ctc.graph_search import intersect, path_hypothesis
from asr_core.decoding.graph.ctc_topology import search_graph
from asr_core.decoding.graph.fsa import Fsa
from asr_core.lm.archive import LmArchive
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.lexicon import read_lexicon
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import read_symbols
from asr_core.text.tokenizer import Tokenizer

K2_FILES = Path(__file__).parents[1] / "golden" / "k2_files"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Mini LibriSpeech after stages 1 and 5 to 8, with a lexicon that spells words by letters."""
    root = tmp_path_factory.mktemp("lm")
    texts = lay_out(root, {"train-clean-5": 12, "dev-clean-2": 3})
    folder = root / "lm"
    folder.mkdir()
    words = sorted({word for lines in texts.values() for word in " ".join(lines).split()} - {"THE"})
    (folder / "librispeech-lexicon.txt").write_text(
        "".join(f"{word}\t{' '.join(word)}\n" for word in [*words, words[0], "ZYX"])
    )
    arguments = [
        "--mini-libri",
        1,
        "--dl-dir",
        root,
        "--data-dir",
        root / "data",
        "--vocab-sizes",
        40,
        "--nj",
        1,
    ]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 1)
    run_prepare(*arguments, "--stage", 5, "--stop-stage", 5)
    run_prepare(*arguments, "--stage", 6, "--stop-stage", 8)
    return root, root / "data", arguments, texts


def test_lexica(prepared):
    _, data, _, texts = prepared
    phone, bpe = data / "lang_phone", data / "lang_bpe_40"
    lines = (phone / "lexicon.txt").read_text().splitlines()
    assert lines == sorted(set(lines)) and {
        "!SIL SIL",
        "<SPOKEN_NOISE> SPN",
        "<UNK> SPN",
        "ZYX Z Y X",
    } <= set(lines)
    assert (bpe / "words.txt").read_text() == (phone / "words.txt").read_text()
    names = ("lexicon_disambig.txt", "tokens.txt", "words.txt", "L.fst.txt", "L_disambig.fst.txt")
    assert all((lang / name).is_file() for lang in (phone, bpe) for name in names)
    assert Tokenizer.load(bpe / "tokens.txt").vocab_size == 40 and "#0" in read_symbols(bpe / "tokens.txt")
    assert "THE" not in dict(read_lexicon(bpe / "lexicon.txt"))


def test_word_grammars_are_estimated_where_none_was_downloaded(prepared):
    _, data, _, texts = prepared
    words = read_symbols(data / "lang_phone/words.txt")
    for order in (3, 4):
        lm = NgramLm.from_arpa(data / f"lm/{order}-gram.arpa", words)
        grammar = read_openfst_text(data / f"lm/G_{order}_gram.fst.txt", words["#0"], words)
        sentence = [words[w] for w in texts["train-clean-5"][0].split() if w in words]
        assert grammar.sentence_log_prob(sentence) == pytest.approx(lm.sentence_log_prob(sentence), abs=1e-3)
    assert not (data / "lm/G_5_gram.fst.txt").exists()


def test_token_models(prepared):
    _, data, _, texts = prepared
    lang = data / "lang_bpe_40"
    tokens, lexicon = read_symbols(lang / "tokens.txt"), dict(read_lexicon(lang / "lexicon.txt"))
    spelt = (lang / "transcript_tokens.txt").read_text().splitlines()
    assert len(spelt) == len(texts["train-clean-5"])
    assert spelt[0].split() == [
        p for w in texts["train-clean-5"][0].split() for p in lexicon.get(w, ["\u2581", "<unk>"])
    ]
    scores = []
    for order in (2, 3, 4, 5):
        lm = NgramLm.from_arpa(lang / f"{order}gram.arpa", tokens)
        again = read_openfst_text(lang / f"{order}gram.fst.txt", tokens["#0"], tokens)
        ids = [tokens[t] for t in spelt[0].split()]
        scores.append(lm.sentence_log_prob(ids))
        assert again.sentence_log_prob(ids) == pytest.approx(scores[-1], abs=1e-3)
    assert np.all(np.diff(scores) > 0)  # a sentence of the training text


def test_training_data(prepared):
    _, data, _, texts = prepared
    folder, tokenizer = data / "lm_training_bpe_40", Tokenizer.load(data / "lang_bpe_40")
    for suffix, lines in (("", texts["train-clean-5"]), ("-valid", texts["dev-clean-2"])):
        archive, ordered = (LmArchive.load(folder / f"{kind}lm_data{suffix}.pt") for kind in ("", "sorted_"))
        assert archive.tokens_of(torch.arange(len(lines))).tolist() == [
            t for ids in tokenizer.encode(lines) for t in ids
        ]
        assert ordered.sentence_lengths.tolist() == sorted(archive.sentence_lengths.tolist(), reverse=True)
        assert f"sentences: {len(lines)}\n" in (folder / f"statistics{suffix}.txt").read_text()
    assert (folder / "valid.txt").read_text().splitlines() == texts["dev-clean-2"]


def test_decoding_graphs(prepared):
    """LG and HLG of both lang folders; a second run has nothing to do."""
    pytest.importorskip("kaldifst")
    _, data, arguments, texts = prepared
    run_prepare(*arguments, "--stage", 9, "--stop-stage", 9)
    graphs = [
        data / lang / f"{name}.fst.txt" for lang in ("lang_phone", "lang_bpe_40") for name in ("LG", "HLG")
    ]
    times = [path.stat().st_mtime_ns for path in graphs]
    run_prepare(*arguments, "--stage", 9, "--stop-stage", 9)
    assert [path.stat().st_mtime_ns for path in graphs] == times
    lang = data / "lang_bpe_40"
    graph = search_graph(Fsa.read(lang / "HLG.fst.txt").with_words(read_symbols(lang / "words.txt")))
    lexicon = dict(read_lexicon(lang / "lexicon.txt"))
    words = [w for w in texts["train-clean-5"][0].split() if w in lexicon][:6]
    tokens = [read_symbols(lang / "tokens.txt")[t] for w in words for t in lexicon[w]]
    frames = torch.full((1, 2 * len(tokens), 40), -20.0)
    for t, token in enumerate(tokens):  # a blank behind each
        frames[0, 2 * t, token] = frames[0, 2 * t + 1, 0] = 0.0
    (lattice,) = intersect(frames, torch.tensor([2 * len(tokens)]), graph)
    best = path_hypothesis(graph, lattice, *lattice.shortest_path())
    assert (
        best.words == words
        and best.tokens == tokens
        and best.timestamps == list(range(0, 2 * len(tokens), 2))
    )


def test_decoding_graphs_of_data_that_icefall_prepared(tmp_path):
    """Its lexicon and grammar are composed, and a graph that it has composed is left as it is."""
    pytest.importorskip("kaldifst")
    phone, bpe = tmp_path / "lang_phone", tmp_path / "lang_bpe_40"
    for folder, names in (
        (phone, ["L_disambig.pt", "tokens.txt", "words.txt", "LG.pt"]),
        (bpe, ["L_disambig.pt", "tokens.txt", "words.txt"]),
        (tmp_path / "lm", ["G_3_gram.pt"]),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes((K2_FILES / name).read_bytes())
    arguments = ["--data-dir", tmp_path, "--vocab-sizes", 40, "--stage", 9, "--stop-stage", 9]
    told = run_prepare(*arguments)
    assert f"using {phone}/LG.pt" in told and not (phone / "LG.fst.txt").exists()
    found = [Fsa.read(path).num_states for path in (phone / "HLG.fst.txt", bpe / "HLG.fst.txt")]
    assert found[0] == found[1] > 10 and Fsa.read(bpe / "LG.fst.txt").num_states > 5
    assert f"already done ({bpe}/.LG.done)" in run_prepare(*arguments)
    (bpe / "L_disambig.pt").unlink()
    told = run_prepare(*arguments, status=1)
    assert told.endswith(f"error: no {bpe}/L_disambig.fst.txt or .pt; run stage 6 first\n")


def test_repeating_does_nothing_and_downloaded_models_are_taken(prepared):
    root, data, arguments, _ = prepared
    watched = [
        data / "lm/G_3_gram.fst.txt",
        data / "lang_bpe_40/5gram.arpa",
        data / "lm_training_bpe_40/lm_data.pt",
    ]
    before = [p.stat().st_mtime_ns for p in watched]
    run_prepare(*arguments, "--stage", 6, "--stop-stage", 8)
    assert [p.stat().st_mtime_ns for p in watched] == before
    arpa = (
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-99\t<s>\n-0.5\t</s>\n-0.3\tZYX\n-0.4\tNOTINLEXICON\n\n\\end\\\n"
    )
    (root / "lm/3-gram.pruned.1e-7.arpa").write_text(arpa)
    told = run_prepare(*arguments, "--stage", 7, "--stop-stage", 7)
    assert "1 n-grams with words outside" in told
    words = read_symbols(data / "lang_phone/words.txt")
    arc, end = (line.split("\t") for line in (data / "lm/G_3_gram.fst.txt").read_text().splitlines())
    assert list(map(int, arc[:4])) == [0, 0, words["ZYX"], words["ZYX"]] and float(arc[4]) == pytest.approx(
        0.3 * np.log(10), abs=1e-5
    )
    assert end[0] == "0" and float(end[1]) == pytest.approx(0.5 * np.log(10), abs=1e-5)
    (root / "lm/3-gram.pruned.1e-7.arpa").unlink()


def test_without_the_lexicon_one_line_says_where_it_comes_from(tmp_path):
    told = run_prepare(
        "--dl-dir", tmp_path, "--data-dir", tmp_path / "d", "--stage", 6, "--stop-stage", 6, status=1
    )
    assert "librispeech-lexicon.txt; ./prepare.sh --stage -1 --stop-stage -1 downloads it" in told
    told = run_prepare("--lm-order", "x", status=1)
    assert "--lm-order must be from 1 to 9" in told

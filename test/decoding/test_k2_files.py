"""Graphs that k2 saved: their best paths are those that k2 finds, and what is damaged is named.

See `test/golden/k2_files/README.md`.
"""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch

from asr_core.decoding.graph.compile import compile_lg, find_grammar
from asr_core.decoding.graph.ctc_topology import search_graph
from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.k2_graph import read_k2_grammar, read_k2_graph
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import get_method
from asr_core.decoding.resource_loading import load_resources
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.options import LmOptions
from asr_core.lm.symbols import read_symbols
from asr_core.text.tokenizer import Tokenizer, read_pieces
from asr_core.utils.errors import UserError

FOLDER = Path(__file__).parent.parent / "golden/k2_files"
WORDS = read_symbols(FOLDER / "words.txt")
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


def best_path(graph, length, score_of):
    """The score and the words of the best path of ``length`` arcs."""
    leaving = {}
    for source, *arc in zip(*(column.tolist() for column in graph.arcs())):
        leaving.setdefault(source, []).append(arc)
    best = {graph.start: (0.0, ())}
    for place in range(length):
        following = {}
        for state, (score, words) in best.items():
            for dest, label, output, weight in leaving.get(state, ()):
                found = (score + weight + score_of(place, label), (*words, *graph.names[output].split()))
                if found[0] > following.get(dest, (-1e9,))[0]:
                    following[dest] = found
        best = following
    return max((score + float(graph.final[state]), " ".join(words)) for state, (score, words) in best.items())


def only(tokens):
    """Scores that forbid all other tokens."""
    return lambda place, label: 0.0 if label == tokens[place] else -1e10


def of_frames(log_probs):
    return lambda place, label: log_probs[place][label]


def named(graph):
    return graph.with_words({**WORDS, "": 0})


def test_paths_of_lg():
    graph = remove_epsilons(named(read_k2_graph(FOLDER / "LG.pt")))
    assert (graph.label > 0).all() and len(EXPECTED["tokens"]) == 12
    for case in EXPECTED["tokens"]:
        tokens = case["tokens"]
        score, words = best_path(graph, len(tokens), only(tokens))
        assert (round(score, 4), words) == (round(case["best"][0], 4), case["best"][1])


def test_paths_of_hlg():
    graph = search_graph(named(read_k2_graph(FOLDER / "HLG.pt", shift=1)))
    for case in EXPECTED["frames"]:
        frames = case["log_probs"]
        score, words = best_path(graph, len(frames), of_frames(frames))
        assert (round(score, 3), words) == (round(case["best"][0], 3), case["best"][1])


@pytest.mark.parametrize("name", ["G_3_gram.pt", "G_4_gram.pt"])
def test_grammars_are_the_n_gram_that_they_were_made_of(name):
    ours = read_openfst_text(FOLDER / "G.fst.txt", WORDS["#0"], WORDS)
    theirs = read_k2_grammar(FOLDER / name, WORDS)
    words = [i for word, i in WORDS.items() if word[0] not in "<#"]
    for first in words:
        sentence = [first, *words[:3], first]
        assert theirs.sentence_log_prob(sentence) == pytest.approx(ours.sentence_log_prob(sentence), abs=1e-5)


@pytest.mark.parametrize("name", ["G_3_gram", "G_4_gram"])
def test_lg_is_composed_of_their_parts(name, tmp_path):
    pytest.importorskip("kaldifst")
    for file in ("tokens.txt", "words.txt", "L_disambig.pt", f"{name}.pt"):
        (tmp_path / file).write_bytes((FOLDER / file).read_bytes())
    graph = compile_lg(tmp_path, find_grammar(name, tmp_path))
    graph = remove_epsilons(named(graph))
    for case in EXPECTED["tokens"]:
        tokens = case["tokens"]
        score, words = best_path(graph, len(tokens), only(tokens))
        assert words == case["best"][1] and score == pytest.approx(case["best"][0], abs=1e-3)


@pytest.mark.parametrize("name", ["several_words.pt", "vector_of_one.pt"])
def test_several_words_on_an_arc_and_at_the_end(name):
    graph = read_k2_graph(FOLDER / name)
    graph = remove_epsilons(graph.with_words({"": 0, "a": 1, "b": 2, "c": 3}))
    arcs = [
        (s, d, x, graph.names[o], round(w, 4))
        for s, d, x, o, w in zip(*(column.tolist() for column in graph.arcs()))
    ]
    ends = {s: round(float(w), 4) for s, w in enumerate(graph.final) if w > -1e9}
    said = {
        (path[0][2], *[a[2] for a in path[1:]]): (
            " ".join(a[3] for a in path if a[3]),
            round(sum(a[4] for a in path) + ends[path[-1][1]], 4),
        )
        for path in [*([a] for a in arcs), *([a, b] for a in arcs for b in arcs if a[1] == b[0])]
        if path[0][0] == graph.start and path[-1][1] in ends
    }
    assert said == {
        (2,): ("a b b c", -0.625),
        (3,): ("b c", -0.875),
        (2, 4): ("a b c", -0.75),
        (3, 4): ("c", -1.0),
    }


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (eval, ("__import__('os').system('touch broken_into')",))


def saved(path, content):
    torch.save(content, path)
    return path


def test_what_is_no_graph_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arcs = torch.tensor([[0, 1, 3, 0], [1, 2, -1, 0]], dtype=torch.int32)
    cases = {
        "no such file": tmp_path / "none.pt",
        "not loaded for safety": saved(tmp_path / "a.pt", {"arcs": Evil()}),
        "holds a list": saved(tmp_path / "b.pt", [arcs]),
        "it has no arcs": saved(tmp_path / "c.pt", {"model": arcs}),
        "do not have four columns": saved(tmp_path / "d.pt", {"arcs": arcs[:, :3]}),
        "a state or label is negative": saved(tmp_path / "e.pt", {"arcs": -arcs}),
        "no final state": saved(tmp_path / "f.pt", {"arcs": arcs[:1]}),
        "no single graph": saved(tmp_path / "g.pt", {"arcs": arcs.reshape(-1)}),
        "not as many output labels": saved(tmp_path / "h.pt", {"arcs": arcs, "aux_labels": arcs[0]}),
        "unknown form": saved(tmp_path / "i.pt", {"arcs": arcs, "aux_labels": "x"}),
        "i.txt is damaged": tmp_path / "i.txt",
    }
    (tmp_path / "i.txt").write_text("0 1 2\n")
    for message, path in cases.items():
        with pytest.raises(UserError, match=message):
            read_k2_graph(path)
    assert not (tmp_path / "broken_into").exists()
    data = (FOLDER / "LG.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cut.pt"):
        read_k2_graph(tmp_path / "cut.pt")


def test_text_and_k2_read_alike():
    ours, theirs = Fsa.read(FOLDER / "G.fst.txt"), read_k2_graph(FOLDER / "G_3_gram.pt")
    assert (ours.num_states, ours.num_arcs) == (theirs.num_states, theirs.num_arcs)


def test_a_ragged_tensor_whose_parts_do_not_fit_together():
    from asr_core.utils.k2_files import Ragged

    good = Ragged()
    good.__setstate__((torch.tensor([0, 2, 3]), "row_ids1", torch.tensor([5, 6, 7])))
    assert [len(split) for split in good.splits] == [3] and good.values.tolist() == [5, 6, 7]
    for splits in ([0, 2], [1, 3], [0, 3, 2, 3], []):
        with pytest.raises(pickle.UnpicklingError):
            Ragged().__setstate__((torch.tensor(splits), "row_ids1", torch.tensor([5, 6, 7])))


def test_decoding_finds_them_and_compares_their_tokens(tmp_path):
    """A folder that icefall made serves as ``--lang-dir`` and ``--lm-dir``."""
    for file in ("tokens.txt", "words.txt", "LG.pt", "HLG.pt", "G_4_gram.pt"):
        (tmp_path / file).write_bytes((FOLDER / file).read_bytes())
    pieces = ["<blk>", *read_pieces(FOLDER / "tokens.txt")[1:]]
    opts = SearchOptions(lang_dir=str(tmp_path), lm_dir=str(tmp_path))

    def load(method, tokens):
        return load_resources(get_method(method), opts, LmOptions(), Tokenizer(tokens), torch.device("cpu"))

    found = load("whole-lattice-rescoring", pieces)
    assert found.hlg.names and found.word_lm.sentence([WORDS["A"], WORDS["RED"]]) < -1
    assert load("fast_beam_search_nbest_LG", pieces).lg.num_arcs > 100
    with pytest.raises(
        UserError, match=f"HLG.* was made for other tokens.*, its token 4 is '{pieces[4]}', the"
    ):
        load("1best", [*pieces[:4], "X", *pieces[5:]])
    (tmp_path / "2gram.fst.txt").write_text("0\t0\t1\t1\t0.5\n")
    lodr = dataclasses.replace(opts, lodr_ngram=str(tmp_path / "2gram.fst.txt"), lodr_lm_scale=-0.1)
    method = get_method("ctc-prefix-beam-search-shallow-fusion")
    with pytest.raises(UserError, match="2gram.fst.txt was made for other tokens"):
        tokenizer = Tokenizer([*pieces[:4], "X", *pieces[5:]])
        load_resources(method, lodr, LmOptions(), tokenizer, torch.device("cpu"))

"""Searching graphs with CTC, and what is done with lattices, against the list of all paths and
against k2.
"""

import dataclasses
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_graph import all_paths, collapse, frames, fsa_of, word_graph
from toy_lexicon import LEXICON, grammar_score
from toy_search import log_sum

from asr_core.bin import compile_hlg
from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.graph_search import intersect, path_hypothesis
from asr_core.decoding.graph.ctc_topology import ctc_topology, search_graph, topology_arcs
from asr_core.decoding.graph.fsa import Fsa
from asr_core.lm.symbols import read_symbols
from asr_core.ops.cpu import lattice as kernels
from asr_core.utils.errors import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden/graph_search_k2.npz"
WIDE = GraphSearchOptions(1000.0, 1000.0)
LENS = torch.tensor([4, 0, 3])


def paths_of(lattice):
    """All paths of a lattice: (arcs of the graph, score)."""
    done, todo = [], [(0, (), 0.0)]
    while todo:
        node, arcs, score = todo.pop()
        if lattice.final[node] > -math.inf:
            done.append((arcs, score + lattice.final[node]))
        for a in range(lattice.begin[node], lattice.begin[node + 1]):
            todo.append((int(lattice.dest[a]), (*arcs, int(lattice.arc[a])), score + lattice.score[a]))
    return done


def total(lattice):
    """Log of the summed probabilities of all paths."""
    return kernels.backward(lattice.begin, lattice.dest, lattice.score, lattice.final, 1.0)[0]


@pytest.mark.parametrize("seed", range(5))
def test_wide_beams_keep_every_path(seed):
    graph, x = word_graph(seed), frames(3, 4, 3, seed=seed)
    for i, lattice in enumerate(intersect(x, LENS, graph, WIDE)):
        want = all_paths(graph, x[i, : LENS[i]])
        if not LENS[i]:
            continue  # the start of these graphs is no end
        found = paths_of(lattice)
        assert len(found) == len(want)
        assert sorted(s for _, s in found) == pytest.approx(sorted(am + g for _, _, am, g in want), abs=1e-4)
        labels, words, am, score = max(want, key=lambda p: p[2] + p[3])
        best = path_hypothesis(graph, lattice, *lattice.shortest_path())
        assert best.log_prob == pytest.approx(am + score, abs=1e-5)
        assert best.tokens == collapse(labels) and best.words == ["?ABC"[w] for w in words]
        assert all(
            labels[t] == k and (t == 0 or labels[t - 1] != k) for t, k in zip(best.timestamps, best.tokens)
        )
        by_words = defaultdict(list)
        for _, words, am, score in want:
            by_words[words].append(am + score)
        of_words = lattice.labels(graph.output)
        for words, scores in by_words.items():
            assert lattice.total_score(of_words, words, True) == pytest.approx(log_sum(scores), abs=1e-4)
            assert lattice.total_score(of_words, words, False) == pytest.approx(max(scores), abs=1e-4)
            path, score = lattice.best_path(of_words, words)
            assert (
                score == pytest.approx(max(scores), abs=1e-4)
                and tuple(o for o in of_words[path] if o) == words
            )
        assert total(lattice) == pytest.approx(
            log_sum(s for scores in by_words.values() for s in scores), abs=1e-4
        )


@pytest.mark.parametrize("beam", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_pruning_keeps_what_is_good_enough(seed, beam):
    graph, x = word_graph(seed), frames(1, 5, 3, seed=seed)
    (narrow,) = intersect(x, torch.tensor([5]), graph, dataclasses.replace(WIDE, output_beam=beam))
    (wide,) = intersect(x, torch.tensor([5]), graph, WIDE)
    scores = {arcs: score for arcs, score in paths_of(wide)}
    best = max(scores.values())
    kept, good = (
        {arcs for arcs, _ in paths_of(narrow)},
        {arcs for arcs, score in scores.items() if score >= best - beam},
    )
    assert good <= kept < set(scores)
    on_good = {(t, a) for arcs in good for t, a in enumerate(arcs)}
    assert {
        (t, a) for arcs in kept for t, a in enumerate(arcs)
    } == on_good  # an arc for each, and none besides
    again = wide.pruned(beam)
    assert dict(paths_of(again)) == pytest.approx(dict(paths_of(narrow))) and len(again.final) == len(
        narrow.final
    )
    assert narrow.shortest_path()[1] == pytest.approx(best)


def test_limits_on_states():
    graph, x = word_graph(0, states=8, vocab_size=6), frames(1, 30, 6, peak=3.0)
    best = intersect(x, torch.tensor([30]), graph, WIDE)[0].shortest_path()[1]
    sizes, scores = [], []
    for least, most in ((1, 10000), (1, 2), (1, 1), (8, 10000)):
        (lattice,) = intersect(x, torch.tensor([30]), graph, GraphSearchOptions(0.1, 1000.0, least, most))
        states = [len(np.unique(lattice.dest[lattice.frame == t])) for t in range(30)]
        assert max(states) <= most
        sizes.append(sum(states))
        scores.append(lattice.shortest_path()[1])
    assert (
        sizes[3] > sizes[0] > sizes[2] == 30 and scores[3] == pytest.approx(best) and max(scores[:3]) <= best
    )


def test_batches_and_single_utterances_agree():
    graph, x = word_graph(1, states=6, vocab_size=5), frames(6, 25, 5)
    lens = torch.tensor([25, 3, 17, 1, 0, 25])
    for i, lattice in enumerate(intersect(x, lens, graph)):
        (alone,) = intersect(x[i : i + 1, : max(int(lens[i]), 1)], lens[i : i + 1], graph)
        assert all(np.array_equal(a, b) for a, b in zip(lattice, alone))


def test_utterances_that_end_nowhere():
    """Where the graph accepts all frames but ends nowhere after them, ending is free; where it
    stops before, there is nothing.
    """
    chain = fsa_of([(0, 1, 1, 1, 0.0), (1, 2, 2, 2, 0.0)], {2: 0.0})
    x = frames(3, 3, 3)
    one, two, three = intersect(x, torch.tensor([1, 2, 3]), chain)
    for lattice, length in ((one, 1), (two, 2)):
        path, score = lattice.shortest_path()
        assert path_hypothesis(chain, lattice, path, score).tokens == [1, 2][:length]
    assert three.shortest_path()[1] == -math.inf and three.random_paths(3, 1.0).shape == (0, 3)
    with pytest.raises(UserError, match="has the token 2"):
        intersect(x[..., :2], torch.tensor([1, 1, 1]), chain)


@pytest.mark.parametrize("modified", [False, True])
def test_topologies_accept_every_alignment(modified):
    graph = search_graph(topology_arcs(3, modified).with_words({"<eps>": 0, "A": 1, "B": 2}))
    x = frames(1, 5, 3)
    (lattice,) = intersect(x, torch.tensor([5]), graph, WIDE)
    labels = [tuple(graph.label[list(arcs)]) for arcs, _ in paths_of(lattice)]
    assert set(labels) == set(np.ndindex(3, 3, 3, 3, 3))
    if not modified:
        assert len(labels) == 3**5
        assert all(
            graph.words(arcs) == ["?AB"[k] for k in collapse(graph.label[list(arcs)])]
            for arcs, _ in paths_of(lattice)
        )
        assert graph.num_arcs == 9 and ctc_topology(3).num_arcs == 9


def test_k2_found_the_same(toy_lang):
    """Best paths and sums over CTC's topologies, and best words with HLG, which k2 has composed of
    the same lexicon and grammar.
    """
    data = np.load(GOLDEN)
    x, lens = torch.from_numpy(data["frames"]), torch.from_numpy(data["lens"])
    words = read_symbols(toy_lang / "words.txt")
    graphs = {
        "topology": ctc_topology(7),
        "modified_topology": search_graph(topology_arcs(7, True).with_words({str(i): i for i in range(7)})),
    }
    for name, flag in (("hlg", "0"), ("modified_hlg", "1")):
        compile_hlg.main(
            argv=["--lang-dir", str(toy_lang), "--lm", "G", "--lm-dir", str(toy_lang), "--modified", flag]
        )
        graphs[name] = search_graph(Fsa.read(toy_lang / "HLG.fst.txt").with_words(words))
    assert graphs["modified_hlg"].num_states < graphs["hlg"].num_states
    names = {i: word for word, i in words.items()}
    for name, graph in graphs.items():
        for i, lattice in enumerate(intersect(x, lens, graph, GraphSearchOptions(50.0, 25.0))):
            path, score = lattice.shortest_path()
            said = [o for o in data[f"{name}_output"][i].tolist() if o]
            output = graph.output[lattice.arc[path]]
            assert score == pytest.approx(data[f"{name}_score"][i], abs=1e-4)
            if "hlg" in name:
                assert path_hypothesis(graph, lattice, path, score).words == [names[o] for o in said]
            else:
                assert (
                    output[output > 0].tolist() == said or name == "modified_topology"
                )  # whose best paths are many
                assert total(lattice) == pytest.approx(data[f"{name}_total"][i], abs=1e-4)
    usual = [lattice.shortest_path()[1] for lattice in intersect(x, lens, graphs["hlg"])]
    assert usual == pytest.approx(data["narrow_hlg_score"].tolist(), abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_k2_makes_the_same_lattices(seed):
    """k2, if installed, gives the same number of arcs, best paths and sums."""
    pytest.importorskip("k2")
    graph = ctc_topology(9) if seed % 3 == 0 else word_graph(seed, states=12, vocab_size=9)
    x, lens = frames(5, 40, 9, seed=seed, peak=3.0), torch.tensor([40, 0, 17, 33, 1])
    own, theirs = (intersect(x, lens, graph, GraphSearchOptions(backend=name)) for name in ("own", "k2"))
    for a, b in zip(own, theirs):
        (path, score), (their_path, their_score) = a.shortest_path(), b.shortest_path()
        assert a.arc[path].tolist() == b.arc[their_path].tolist() and score == pytest.approx(
            their_score, abs=1e-4
        )
        assert len(a.arc) == len(b.arc) and total(a) == pytest.approx(total(b), abs=1e-3)


def test_hlg_reads_the_words_of_the_lexicon(toy_lang):
    compile_hlg.main(argv=["--lang-dir", str(toy_lang), "--lm", "G", "--lm-dir", str(toy_lang)])
    graph = search_graph(Fsa.read(toy_lang / "HLG.fst.txt").with_words(read_symbols(toy_lang / "words.txt")))
    x = torch.zeros(1, 5, 7)
    (lattice,) = intersect(x, torch.tensor([5]), graph, WIDE)
    found = defaultdict(lambda: -math.inf)
    for arcs, score in paths_of(lattice):
        words = tuple(graph.words(arcs))
        assert collapse(graph.label[list(arcs)]) == [t for word in words for t in LEXICON[word]]
        found[words] = max(found[words], score)
    assert len(found) > 60
    assert dict(found) == pytest.approx({words: grammar_score(words) for words in found}, abs=0.01)

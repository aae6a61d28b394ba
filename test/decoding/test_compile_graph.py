import itertools
import math

import numpy as np
import pytest
import torch
from toy_graph import fsa_of
from toy_lexicon import LEXICON, grammar_score
from toy_search import random_batch, small_model

from asr_core.bin import compile_lg
from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.transducer.fast_beam import fast_beam_search
from asr_core.lm.symbols import read_symbols
from asr_core.utils.errors import UserError

NAMES = {"<eps>": 0, "A": 1, "B": 2, "C": 3}


def readings(graph, longest):
    """For each (tokens, words) of at most ``longest`` tokens the best score, by following all
    paths.
    """
    out, todo = {}, [(graph.start, (), (), 0.0)]
    seen = {}
    while todo:
        state, tokens, words, score = todo.pop()
        if score <= seen.get((state, tokens, words), -math.inf):
            continue
        seen[state, tokens, words] = score
        end = score + float(graph.final[state])
        if end > -math.inf:
            out[tokens, words] = max(end, out.get((tokens, words), -math.inf))
        for a in range(graph.begin[state], graph.begin[state + 1]):
            more = (int(graph.label[a]),) if graph.label[a] else ()
            if len(tokens) + len(more) <= longest:
                said = tuple(graph.words([a]))
                todo.append((int(graph.dest[a]), tokens + more, words + said, score + float(graph.score[a])))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_graphs_without_epsilons_say_the_same(seed):
    rng = np.random.default_rng(seed)
    arcs = []
    for source in range(5):
        for dest in range(5):
            label = int(rng.integers(0, 4))
            if label or dest > source:  # arcs without token make no cycle
                arcs.append((source, dest, label, int(rng.integers(0, 4)), float(rng.normal() - 1)))
    graph = fsa_of(arcs, {3: -0.5, 4: -1.0}).with_words(NAMES)
    assert (graph.label == 0).any()
    plain = remove_epsilons(graph)
    assert not (plain.label == 0).any()
    want, found = readings(graph, 3), readings(plain, 3)
    with_words = remove_epsilons(graph, silent_only=True)
    assert not ((with_words.label == 0) & (with_words.output == 0)).any() and (with_words.label == 0).any()
    assert readings(with_words, 3) == pytest.approx(want, abs=1e-5)
    silent = {
        key for key in want if not key[0] and key[1]
    }  # words without any token: no arc is left to say them
    assert found == pytest.approx({k: v for k, v in want.items() if k not in silent}, abs=1e-5)
    assert len(found) > 20


def test_histories_get_no_arcs_of_those_that_they_back_off_to():
    """20 histories with one arc to them each, all backing off to one with 50 arcs."""
    arcs = [(0, 2 + i, 1 + i, 0, -1.0) for i in range(20)] + [(2 + i, 1, 0, 0, -0.5) for i in range(20)]
    arcs += [(1, 0, 1 + k, 0, -2.0) for k in range(50)]
    graph = fsa_of(arcs, {0: 0.0})
    plain = remove_epsilons(graph, silent_only=True)
    assert plain.num_arcs == 70 and readings(plain.with_words(NAMES), 2) == readings(
        graph.with_words(NAMES), 2
    )


def test_cycles_are_refused():
    graph = fsa_of([(0, 1, 0, 1, -1.0), (1, 0, 0, 1, -1.0)], {0: 0.0}).with_words(NAMES)
    with pytest.raises(UserError, match="cycle"):
        remove_epsilons(graph)


def test_lg_reads_words_with_the_grammar_s_scores(toy_lang):

    graph = remove_epsilons(
        Fsa.read(toy_lang / "LG.fst.txt").with_words(read_symbols(toy_lang / "words.txt"))
    )
    graph.check_labels(7, 0)
    found = readings(graph, 4)
    want = {}
    for n in range(5):
        for words in itertools.product(LEXICON, repeat=n):
            tokens = tuple(t for word in words for t in LEXICON[word])
            if len(tokens) <= 4:
                want[tokens, words] = grammar_score(words)
    assert found == pytest.approx(want, abs=0.01)
    assert len({tokens for tokens, _ in want}) < len(want) and len(want) > 60


@torch.no_grad()
def test_search_with_lg_says_words_of_its_tokens(toy_lang):

    graph = remove_epsilons(
        Fsa.read(toy_lang / "LG.fst.txt").with_words(read_symbols(toy_lang / "words.txt"))
    )
    model = small_model(vocab_size=7, scale=1.5)
    x, lens = random_batch(n=10, t=20)
    for hyp in fast_beam_search(model, x, lens, graph=graph):
        assert [t for word in hyp.words for t in LEXICON[word]] == hyp.tokens


def test_what_is_missing(toy_lang, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compile_lg.main(argv=["--lang-dir", str(tmp_path), "--lm", str(toy_lang / "G.fst.txt")])
    assert "tokens.txt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compile_lg.main(argv=["--lang-dir", str(toy_lang), "--lm", "H", "--lm-dir", str(tmp_path)])
    assert "H.fst.txt" in capsys.readouterr().err
    compile_lg.main(argv=["--lang-dir", str(toy_lang), "--lm", str(toy_lang / "G.fst.txt")])
    with pytest.raises(SystemExit):
        compile_lg.main(argv=["--lang-dir", str(toy_lang), "--lm", str(toy_lang / "LG.fst.txt")])
    assert "LG.fst.txt is not a grammar" in capsys.readouterr().err

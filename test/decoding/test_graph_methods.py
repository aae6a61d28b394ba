"""Methods that search a graph with the CTC head and rescore, against the list of all paths."""

import dataclasses
import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_graph import WORDS, all_paths, collapse, frames, fsa_of, grammar_score, ngram, word_graph
from toy_search import log_sum

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.graph_search import intersect
from asr_core.decoding.graph.ctc_topology import ctc_topology
from asr_core.decoding.graph.word_lm import WordLm, with_language_model
from asr_core.decoding.method import BEST, Job, Transcripts
from asr_core.decoding.methods import graph as methods
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resources import Resource, Resources
from asr_core.utils.errors import UserError

LENS = [4, 3, 0]
WIDE = SearchOptions(search_beam=1000.0, output_beam=1000.0, num_paths=5000, nbest_scale=0.05, beam_size=100)


class Attention:
    """Stands for an attention decoder: each token's cost hangs on the token before it, and on the
    first frame.
    """

    def nll(self, encoder_out, lens, token_ids):
        assert encoder_out.size(1) == int(lens[0]) and len(token_ids) == len(encoder_out)
        out = torch.zeros(len(token_ids), max(map(len, token_ids)) + 1)
        for row, tokens in zip(out, token_ids):
            costs = self.costs(encoder_out[0], tokens)
            row[: len(costs)] = torch.tensor(costs)
        return out

    def costs(self, x, tokens):
        before = [1, *tokens]
        return [1.0 + math.sin(3 * a + 5 * b + float(x[0, 0])) for a, b in zip(before, [*tokens, 1])]


def job_of(x, opts=WIDE, lens=None, references=None, num_best=10**6, **fields):
    return Job(
        model=SimpleNamespace(ctc_output=lambda x: x, attention_decoder=Attention()),
        encoder_out=x,
        lens=torch.tensor(lens or LENS),
        opts=opts,
        resources=Resources(**fields),
        references=None if references is None else Transcripts(words=references),
        num_best=num_best,
    )


def search(name, x, opts=WIDE, **fields):
    """The results of a method."""
    return METHODS[name].search(job_of(x, dataclasses.replace(opts, decoding_method=name), **fields))


def answers(results):
    """The answers of each result."""
    return {name: [hypotheses[0] for hypotheses in lists] for name, lists in results.items()}


def attention_score(x, tokens):
    return -sum(Attention().costs(x, tokens)) if len(x) else 0.0


def by_words(graph, x, key=lambda words, am, score: am + score):
    """The best path of each word sequence by ``key``: {words: (labels, am, graph's score)}."""
    best = {}
    for labels, words, am, score in all_paths(graph, x):
        if words not in best or key(words, am, score) > key(words, *best[words][1:]):
            best[words] = (labels, am, score)
    return best


def named(words):
    return ["?ABC"[w] for w in words]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return ngram(tmp_path_factory.mktemp("lm"))


def final_everywhere(seed):
    """A graph that accepts the utterance without frames, too."""
    graph = word_graph(seed)
    graph.final[:] = np.where(graph.final > -np.inf, graph.final, -0.5)
    return graph


@pytest.mark.parametrize("seed", range(4))
def test_best_paths_and_lists(seed):
    graph, x = final_everywhere(seed), frames(3, 4, 3, seed=seed)
    lists = search("nbest", x, hlg=graph)[BEST]
    best, nbest = (answers(search(name, x, hlg=graph, num_best=1))[BEST] for name in ("1best", "nbest"))
    assert search("1best", x, hlg=graph)[BEST] == lists
    for i, n in enumerate(LENS):
        want = sorted(by_words(graph, x[i, :n]).items(), key=lambda item: -item[1][1] - item[1][2])
        likely = lists[i][:20]  # it may be that a very unlikely one is never drawn
        assert [h.words for h in likely] == [named(words) for words, _ in want[:20]]
        assert [h.log_prob for h in likely] == pytest.approx(
            [am + score for _, (_, am, score) in want[:20]], abs=1e-4
        )
        assert [h.tokens for h in likely] == [collapse(labels) for _, (labels, _, _) in want[:20]]
        assert len({tuple(h.words) for h in lists[i]}) == len(lists[i]) > 0.9 * len(want)
        assert best[i][:2] == lists[i][0][:2] and best[i].words == lists[i][0].words
        assert nbest[i] == lists[i][0] and best[i].log_prob == pytest.approx(lists[i][0].log_prob)


@pytest.mark.parametrize("seed", range(3))
def test_ctc_alone(seed):
    x = frames(3, 4, 3, seed=seed)
    lists = search("ctc-decoding", x)[BEST]
    for i, n in enumerate(LENS):
        best = by_words(ctc_topology(3), x[i, :n])
        want = sorted(best.items(), key=lambda item: -item[1][1])
        assert [tuple(h.tokens) for h in lists[i]] == [tokens for tokens, _ in want] and lists[i][
            0
        ].words is None
        assert [h.log_prob for h in lists[i]] == pytest.approx([path[1] for _, path in want], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_oracle(seed):
    graph, x = final_everywhere(seed), frames(3, 4, 3, seed=seed)
    references = [["B", "A", "C"], ["A"], []]
    found = answers(search("nbest-oracle", x, hlg=graph, references=references))[BEST]
    for i, n in enumerate(LENS):
        distance = {words: edits(references[i], named(words)) for words in by_words(graph, x[i, :n])}
        assert edits(references[i], found[i].words) == min(distance.values())
    with pytest.raises(UserError, match="transcripts"):
        search("nbest-oracle", x, hlg=graph)


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, last = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize("seed", range(4))
def test_rescoring_with_words(lm, seed):
    """n-best: each word sequence has the acoustic score of its best path in the first search;
    lattice: that of the best path of all.
    """
    graph, x = final_everywhere(seed), frames(3, 4, 3, seed=seed)
    resources = dict(hlg=graph, word_lm=WordLm.of_graph(lm[0], graph, lm[1]))
    lists, lattices = (
        answers(search(name, x, **resources)) for name in ("nbest-rescoring", "whole-lattice-rescoring")
    )
    assert (
        list(lists) == list(lattices) == [f"lm_scale_{s}" for s in methods.LM_SCALES]
        and "lm_scale_0.3" in lists
    )
    different = set()
    for scale in methods.LM_SCALES:
        for i, n in enumerate(LENS):
            first = by_words(graph, x[i, :n])
            am = by_words(graph, x[i, :n], key=lambda words, am, score: am)
            for found, paths in ((lists, first), (lattices, am)):
                totals = {words: path[1] / scale + grammar_score(words) for words, path in paths.items()}
                best = max(totals, key=totals.get)
                hyp = found[f"lm_scale_{scale}"][i]
                assert hyp.words == named(best) and hyp.log_prob == pytest.approx(totals[best], abs=1e-3)
                assert hyp.tokens == collapse(paths[best][0]) or found is lattices
            different.add((i, tuple(hyp.words)))
    assert len(different) > len(LENS)  # the weight matters


@pytest.mark.parametrize("seed", range(3))
def test_lattices_with_a_language_model(lm, seed):
    """Every path has both scores, whatever words its arcs stand for; too large a lattice is pruned."""
    graph = final_everywhere(seed)
    pairs = {**WORDS, "A B": 4, "B C A": 5}
    graph.output[:] = np.random.default_rng(seed).integers(0, 6, graph.num_arcs)
    graph = graph.with_words(pairs)
    word_lm, x = WordLm.of_graph(lm[0], graph, lm[1]), frames(1, 4, 3, seed=seed)
    (lattice,) = intersect(x, torch.tensor([4]), graph, GraphSearchOptions(1000.0, 1000.0))
    split = with_language_model(lattice, graph, word_lm)
    spoken = {0: (), 4: (1, 2), 5: (2, 3, 1)}
    want = defaultdict(list)
    for _, labels, am, _ in all_paths(graph, x[0]):
        words = tuple(w for label in labels for w in spoken.get(label, (label,)))
        want[labels].append((am, grammar_score(words)))
        assert word_lm.sentence(labels) == pytest.approx(want[labels][-1][1], abs=1e-4)
    for labels, paths in want.items():
        for a, b in ((1.0, 0.0), (0.5, 1.0), (2.0, 3.0)):
            whole = split.weighted(a, b)
            total = whole.total_score(whole.labels(graph.output), labels, True)
            assert total == pytest.approx(log_sum(a * am + b * score for am, score in paths), abs=1e-3)
    small = with_language_model(lattice, graph, word_lm, most_arcs=len(split.lm) // 4)
    assert 0 < len(small.lm) <= len(split.lm) // 4
    with pytest.raises(UserError, match="--output-beam"):
        with_language_model(lattice, graph, word_lm, most_arcs=1)


@pytest.mark.parametrize("seed", range(2))
def test_rescoring_with_attention(seed):
    x = frames(3, 4, 3, seed=seed)
    names = ("attention-decoder-rescoring-no-ngram", "ctc-prefix-beam-search-attention-decoder-rescoring")
    found, prefixes = (answers(search(name, x)) for name in names)
    assert list(found) == list(prefixes) == [f"attention_scale_{s}" for s in methods.MORE_ATTENTION_SCALES]
    assert {"attention_scale_0.01", "attention_scale_1.0", "attention_scale_9.0"} <= set(found)
    for i, n in enumerate(LENS):
        best, sums = by_words(ctc_topology(3), x[i, :n]), defaultdict(list)
        for labels, _, am, _ in all_paths(ctc_topology(3), x[i, :n]):
            sums[tuple(collapse(labels))].append(am)
        for scale in methods.MORE_ATTENTION_SCALES:
            for results, am in (
                (found, {k: p[1] for k, p in best.items()}),
                (prefixes, {k: log_sum(s) for k, s in sums.items()}),
            ):
                totals = {
                    tokens: score + scale * attention_score(x[i, :n], tokens) for tokens, score in am.items()
                }
                hyp = results[f"attention_scale_{scale}"][i]
                assert tuple(hyp.tokens) == max(totals, key=totals.get)
                assert hyp.log_prob == pytest.approx(max(totals.values()), abs=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_rescoring_with_words_and_attention(lm, seed):
    graph, x = final_everywhere(seed), frames(3, 4, 3, seed=seed)
    resources = dict(hlg=graph, word_lm=WordLm.of_graph(lm[0], graph, lm[1]))
    found = answers(search("attention-decoder-rescoring-with-ngram", x, **resources))
    scales = methods.ATTENTION_SCALES
    assert list(found) == [f"ngram_lm_scale_{n}_attention_scale_{a}" for n in scales for a in scales]
    for i, length in enumerate(LENS):
        paths = by_words(graph, x[i, :length], key=lambda words, am, score: am)
        parts = {
            w: (p[1], grammar_score(w), attention_score(x[i, :length], collapse(p[0])))
            for w, p in paths.items()
        }
        for n in (0.01, 1.0, 5.0):
            for a in (0.01, 0.7, 4.0):
                totals = {w: am + n * score + a * attention for w, (am, score, attention) in parts.items()}
                hyp = found[f"ngram_lm_scale_{n}_attention_scale_{a}"][i]
                assert hyp.words == named(max(totals, key=totals.get))
                assert hyp.log_prob == pytest.approx(max(totals.values()), abs=1e-3)


def test_batches_and_single_utterances_agree(lm):
    graph, x, lens = final_everywhere(0), frames(4, 30, 3, peak=1.0), [30, 7, 0, 19]
    fields = dict(hlg=graph, word_lm=WordLm.of_graph(lm[0], graph, lm[1]))
    for name, method in METHODS.items():
        if "search_beam" not in method.uses:
            continue
        opts = SearchOptions(decoding_method=name, num_paths=20)
        resources = fields if Resource.HLG in method.needs else {}
        references = [["A"], ["B"], [], ["C", "A"]]
        job = job_of(x, opts, lens, references, num_best=1, **resources)
        together = answers(method.search(job))
        for i in range(4):
            row = x[i : i + 1, : max(lens[i], 1)]
            one = job_of(row, opts, [lens[i]], references[i : i + 1], num_best=1, **resources)
            alone = answers(method.search(one))
            assert list(alone) == list(together)
            assert all(
                alone[key][0][:2] == together[key][i][:2] and alone[key][0].words == together[key][i].words
                for key in alone
            )


def test_nothing_is_found_where_the_graph_accepts_nothing(lm):
    stuck = fsa_of([(0, 1, 1, 1, 0.0)], {1: 0.0}).with_words(WORDS)  # one frame, no more
    fields = dict(hlg=stuck, word_lm=WordLm.of_graph(lm[0], stuck, lm[1]))
    for name, method in METHODS.items():
        if Resource.HLG in method.needs:
            found_lists = search(name, frames(3, 4, 3), references=[["A"], [], []], **fields)
            for found in answers(found_lists).values():
                assert [(h.tokens, h.words) for h in found] == [([], [])] * 3

import dataclasses
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from golden_search import batches, expected, golden_model, load_golden
from recognition import answers
from toy_graph import fsa_of
from toy_search import all_paths, log_sum, random_batch, small_model

from asr_core.decoding.beam_options import FastBeamOptions, NbestOptions
from asr_core.decoding.method import Job, Transcripts
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resources import Resources
from asr_core.decoding.transducer.fast_beam import FastBeamCore, fast_beam_search
from asr_core.decoding.transducer.fast_beam_lattice import build_lattices
from asr_core.decoding.transducer.fast_beam_nbest import fast_beam_nbest, fast_beam_oracle_nbest
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.ops import fast_beam as ops
from asr_core.ops.cpu import dispatch
from asr_core.utils.errors import UserError

WIDE = FastBeamOptions(beam=200.0, max_contexts=40, max_states=200)
LENS = [4, 0, 3]


def best_of(*args, **options):
    """The first hypotheses of the lists."""
    return [hyp for (hyp,) in fast_beam_nbest(*args, nbest=NbestOptions(**options, num_best=1))]


def oracle_of(*args, **options):
    return [hyp for (hyp,) in fast_beam_oracle_nbest(*args, nbest=NbestOptions(**options, num_best=1))]


def toy(seed, vocab_size=3):
    model = small_model(vocab_size=vocab_size, seed=seed)
    x, _ = random_batch(n=3, t=4, seed=seed)
    return model, x, torch.tensor(LENS)


def word_graph(seed, states=3, vocab_size=3, words=3):
    """A random graph from tokens to words (0: none), ambiguous and with an end that not all states
    have.
    """
    rng = np.random.default_rng(seed)
    arcs = []
    for source in range(states):
        for label in range(1, vocab_size):
            for _ in range(rng.integers(1, 3)):
                arcs.append(
                    (
                        source,
                        int(rng.integers(states)),
                        label,
                        int(rng.integers(words + 1)),
                        float(rng.normal()),
                    )
                )
    final = {0: float(rng.normal()), states - 1: float(rng.normal())}
    return fsa_of(arcs, final, start=1).with_words({"<eps>": 0, "A": 1, "B": 2, "C": 3})


def graph_paths(model, graph, x):
    """Every way to read frames through the graph: (labels with blanks, words, score)."""
    out = []
    for labels, score in all_paths(model, x, 3):
        partial = [((), graph.start, score)]
        for label in labels:
            if label == 0:
                continue
            partial = [
                (
                    (*words, int(graph.output[a])) if graph.output[a] else words,
                    int(graph.dest[a]),
                    total + float(graph.score[a]),
                )
                for words, state, total in partial
                for a in range(graph.begin[state], graph.begin[state + 1])
                if graph.label[a] == label
            ]
        out += [(labels, words, state, total) for words, state, total in partial]
    ended = [(labels, words, total + float(graph.final[state])) for labels, words, state, total in out]
    finite = [p for p in ended if p[2] > -math.inf]
    return finite or [(labels, words, total) for labels, words, _, total in out]


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_wide_beam_finds_the_best_path(seed):
    model, x, lens = toy(seed)
    for i, hyp in enumerate(fast_beam_search(model, x, lens, WIDE)):
        labels, score = max(all_paths(model, x[i, : LENS[i]], 3), key=lambda p: p[1])
        assert hyp.tokens == [k for k in labels if k] and hyp.timestamps == [
            t for t, k in enumerate(labels) if k
        ]
        assert hyp.log_prob == pytest.approx(score, abs=1e-4) and hyp.words is None


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_graph_search_finds_the_best_path(seed):
    model, x, lens = toy(seed)
    graph = word_graph(seed)
    for i, hyp in enumerate(fast_beam_search(model, x, lens, WIDE, graph)):
        labels, words, score = max(graph_paths(model, graph, x[i, : LENS[i]]), key=lambda p: p[2])
        assert hyp.log_prob == pytest.approx(score, abs=1e-4)
        assert hyp.tokens == [k for k in labels if k] and hyp.words == ["?ABC"[w] for w in words]


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_nbest_takes_the_most_probable_words(seed):
    model, x, lens = toy(seed)
    graph = word_graph(seed)
    found = best_of(model, x, lens, WIDE, graph, num_paths=3000, scale=0.3)
    for i, hyp in enumerate(found):
        total = defaultdict(list)
        for _, words, score in graph_paths(model, graph, x[i, : LENS[i]]):
            total[words].append(score)
        best = max(total, key=lambda w: log_sum(total[w]))
        assert hyp.words == ["?ABC"[w] for w in best] or LENS[i] == 0
        assert hyp.log_prob == pytest.approx(log_sum(total[best]), abs=1e-4) or LENS[i] == 0


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_nbest_without_graph_is_the_best_path_of_a_sequence(seed):
    model, x, lens = toy(seed)
    best = fast_beam_search(model, x, lens, WIDE)
    found = best_of(model, x, lens, WIDE, num_paths=500)
    assert [h[:2] for h in found] == [h[:2] for h in best]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in best], abs=1e-4)
    internal = best_of(model, x, lens, dataclasses.replace(WIDE, ilme_scale=0.5), num_paths=500)
    assert any(a.log_prob != pytest.approx(b.log_prob) for a, b in zip(internal, best))


@pytest.mark.parametrize(
    "method, usual",
    [("fast_beam_search", 0.0), ("fast_beam_search_LG", 0.0), ("fast_beam_search_nbest", 0.1), ("fast_beam_search_nbest_LG", 0.0),
     ("fast_beam_search_nbest_oracle", 0.1)],
)  # fmt: skip
@torch.no_grad()
def test_the_internal_language_model_s_usual_scale(method, usual):
    model, x, lens = toy(1)
    graph = word_graph(1) if "LG" in method else None

    def scores(scale):
        opts = SearchOptions(decoding_method=method, num_paths=20, ilme_scale=scale)
        job = Job(
            model=model,
            encoder_out=x,
            lens=lens,
            opts=opts,
            resources=Resources(lg=graph),
            references=Transcripts(tokens=[[1, 2], [1], [2]]),
        )
        return [h.log_prob for h in answers(METHODS[method].search(job))]

    assert scores(None) == scores(usual) != scores(0.1 - usual)


@torch.no_grad()
def test_oracle_has_the_fewest_errors():
    model, x, lens = toy(0)
    references = [[2, 1, 2], [1], [1, 1]]
    found = oracle_of(model, x, lens, references, WIDE, num_paths=5000, scale=0.1)
    assert found[0].tokens == [2, 1, 2] and found[1].tokens == [] and found[2].tokens == [1, 1]
    with pytest.raises(UserError, match="transcripts"):
        oracle_of(model, x, lens, None, WIDE)


@torch.no_grad()
def test_lists_are_in_order_of_merit():
    model, x, lens = toy(1)
    graph = word_graph(1)
    for with_graph in (graph, None):
        best = best_of(model, x, lens, WIDE, with_graph, num_paths=3000, scale=0.3)
        lists = fast_beam_nbest(model, x, lens, WIDE, with_graph, NbestOptions(3000, 0.3))
        three = fast_beam_nbest(model, x, lens, WIDE, with_graph, NbestOptions(3000, 0.3, 3))
        for first, hyps, few, length in zip(best, lists, three, LENS):
            assert hyps[0] == first and few == hyps[:3] and len(few) == (3 if length else 1)
            assert [h.log_prob for h in hyps] == sorted((h.log_prob for h in hyps), reverse=True)
            said = [tuple(h.tokens if h.words is None else h.words) for h in hyps]
            assert len(set(said)) == len(said)
    oracle = fast_beam_oracle_nbest(model, x, lens, [[2, 1, 2], [1], [1, 1]], WIDE, NbestOptions(3000, 0.1))
    assert oracle[0][0].tokens == [2, 1, 2] and oracle[2][0].tokens == [1, 1]
    assert sum(abs(len(h.tokens) - 3) > 2 for h in oracle[0][:5]) == 0


@torch.no_grad()
def test_paths_are_drawn_in_proportion_to_their_probability():
    model, x, _ = toy(1)
    search = FastBeamCore(model, WIDE, keep_transitions=True)
    packed = pack_frames(x[:1], torch.tensor([3]))
    frontier, _ = search.run(packed.frames, search.start(1))
    (lattice,) = build_lattices(search, frontier, [3])
    scale, count = 0.5, defaultdict(int)
    for path in lattice.random_paths(20000, scale):
        count[tuple(np.where(lattice.arc[path] < 0, 0, lattice.arc[path] + 1).tolist())] += 1
    weights = {labels: math.exp(scale * score) for labels, score in all_paths(model, x[0, :3], 3)}
    for labels, weight in weights.items():
        assert count[labels] / 20000 == pytest.approx(weight / sum(weights.values()), abs=0.015)


@pytest.mark.parametrize(
    "opts",
    [
        FastBeamOptions(),
        FastBeamOptions(beam=4.0, max_contexts=4, max_states=8),
        FastBeamOptions(beam=6.0, max_contexts=8, max_states=3),
        FastBeamOptions(beam=3.0, max_contexts=2, max_states=64),
    ],
)
@pytest.mark.parametrize("with_graph", [False, True])
@torch.no_grad()
def test_compiled_and_plain_search_agree(monkeypatch, opts, with_graph):
    model = small_model(vocab_size=6, scale=2.0)
    x, lens = random_batch(n=8, t=25)
    graph = word_graph(0, states=5, vocab_size=6) if with_graph else None
    compiled = fast_beam_search(model, x, lens, opts, graph)
    nbest = best_of(model, x, lens, opts, graph, num_paths=50)
    monkeypatch.setattr(dispatch, "available", lambda: False)
    for a, b in zip(
        [*compiled, *nbest],
        [*fast_beam_search(model, x, lens, opts, graph), *best_of(model, x, lens, opts, graph, num_paths=50)],
    ):
        assert a[:2] == b[:2] and a.words == b.words and a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
    assert sum(len(h.tokens) for h in compiled) > 20


@torch.no_grad()
def test_limits_are_kept():
    model = small_model(vocab_size=6, scale=1.0)
    x, lens = random_batch(n=4, t=20)
    for opts in (
        FastBeamOptions(beam=20.0, max_contexts=3, max_states=64),
        FastBeamOptions(beam=20.0, max_contexts=8, max_states=5),
        FastBeamOptions(beam=1.0, max_contexts=8, max_states=64),
    ):
        search = FastBeamCore(model, opts, word_graph(1, states=4, vocab_size=6))
        frames = pack_frames(x[:1], torch.tensor([20])).frames
        frontier = search.start(1)
        most = 0
        for frame in frames:
            frontier, _ = search.run([frame], frontier)
            live = frontier.score[0][frontier.score[0] > -math.inf]
            codes = ops.contexts_of(frontier)[0]
            most = max(most, len(live))
            assert len(live) <= opts.max_states and len(codes) <= opts.max_contexts
            assert float(live.max() - live.min()) <= opts.beam
        assert most > 1


@torch.no_grad()
def test_a_wider_beam_is_never_worse():
    data = load_golden()
    model = golden_model(data)
    x, lens = next(iter(batches(data, 30)))
    narrow, wide = (
        fast_beam_search(model, x, lens, o)
        for o in (
            FastBeamOptions(beam=4.0, max_contexts=4, max_states=8),
            FastBeamOptions(beam=20.0, max_contexts=8, max_states=64),
        )
    )
    assert all(w.log_prob >= n.log_prob - 1e-3 for w, n in zip(wide, narrow))
    nbest = best_of(model, x, lens, FastBeamOptions())
    assert sum(n.tokens == w.tokens for n, w in zip(nbest, wide)) >= 28
    references = expected(data, "modified_beam_search_4")[:30]
    oracle = oracle_of(model, x, lens, references)
    assert sum(o.tokens == r for o, r in zip(oracle, references)) > sum(
        w.tokens == r for w, r in zip(wide, references)
    )

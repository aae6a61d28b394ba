"""Methods choose the searches for GPUs where the encoder's output is on one; here it is on the CPU,
and they are told otherwise.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from made_up_resources import made_up_lg
from toy_scorers import made_up_ngram, neural, word_arpa
from toy_search import random_batch, small_model
from waiting import Waiting

from asr_core.decoding.device import choice, replay
from asr_core.decoding.device.scorers import WordAutomatonScorer
from asr_core.decoding.method import Job, Transcripts
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.word_ngram import WordNgramScorer, WordWeights
from asr_core.lm.ngram import NgramLm

PIECES = ["<blk>", "\u2581a", "b", "\u2581"]  # words: a, ab, abb, b, ...
PHRASES = ContextGraph([[2, 1], [1, 1, 2], [1, 2, 2, 1]], 0.9, scaling="log")
OPTS = SearchOptions(
    beam_size=4, ngram_lm_scale=-0.3, lodr_lm_scale=0.2, ilme_scale=0.15, max_sym_per_frame=2, num_paths=20
)


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def found(name, context_size=2, vocab_size=3, **resources):
    """Results on the CPU's road, and number of kept searches."""
    model = small_model(vocab_size, context_size=context_size, scale=1.5).double()
    x, lens = random_batch(n=7, t=18, dim=vocab_size if "ctc" in name else 8)
    ctc = lambda x: (2 * x).log_softmax(dim=2)  # noqa: E731
    job = Job(
        model=SimpleNamespace(decoder=model.decoder, joiner=model.joiner, ctc_output=ctc),
        encoder_out=x.double(),
        lens=lens,
        opts=dataclasses.replace(OPTS, decoding_method=name),
        resources=Resources(**resources),
        references=Transcripts(tokens=[[1, 2]] * 7),
        num_best=3,
    )
    return METHODS[name].search(job)


def check(monkeypatch, name, **given):
    usual = found(name, **given)
    monkeypatch.setattr(choice, "on_gpu", lambda x: True)
    results = found(name, **given)
    assert set(results) == set(usual)
    for key, lists in usual.items():
        for hyps, expected in zip(results[key], lists):
            assert [(h.tokens, h.timestamps, h.words) for h in hyps] == [
                (h.tokens, h.timestamps, h.words) for h in expected
            ]
            assert [h.log_prob for h in hyps] == pytest.approx([h.log_prob for h in expected], abs=1e-3)
    kinds = []
    for _, _, key in replay._searches:
        while not isinstance(key, str):
            key = key[0]
        kinds.append(key)
    return kinds


def never_waits():
    """The one search that was kept has graphs without a wait."""
    (search,) = replay._searches.values()
    with Waiting() as waiting, torch.inference_mode():
        (search._frames if hasattr(search, "_frames") else search._rounds)()
    assert waiting.calls > 100 and not waiting.found


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("phrases", [None, PHRASES])
def test_greedy_search(monkeypatch, phrases, context_size):
    assert check(monkeypatch, "greedy_search", context_graph=phrases, context_size=context_size) == [
        "label looping"
    ]


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("resource", ["", "context_graph", "token_ngram", "all"])
def test_modified_beam_search(monkeypatch, ngram, resource, context_size):
    given = {"context_graph": PHRASES, "token_ngram": ngram, "lodr_ngram": ngram}
    chosen = {name: value for name, value in given.items() if resource in (name, "all")}
    kinds = check(monkeypatch, "modified_beam_search", context_size=context_size, **chosen)
    assert kinds == ["modified beam"]
    never_waits()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("fast_beam_search", "fast beam"),
        ("beam_search", None),
        ("fast_beam_search_nbest", "graph beam"),
        ("fast_beam_search_nbest_oracle", "graph beam"),
    ],
)
@pytest.mark.parametrize("context_size", [2, None])
def test_other_searches(monkeypatch, name, kind, context_size):
    on_device = kind is not None and context_size
    assert check(monkeypatch, name, context_size=context_size) == [kind if on_device else "copies on the CPU"]


@pytest.mark.parametrize("name", ["modified_beam_search_lm_shallow_fusion", "modified_beam_search_LODR"])
@pytest.mark.parametrize("context_size", [2, None])
def test_neural_language_models(monkeypatch, name, context_size):
    more = {"token_ngram": made_up_ngram(vocab_size=6), "context_graph": PHRASES} if "LODR" in name else {}
    given = dict(vocab_size=5, context_size=context_size, neural_lm=neural("rnn", 5), **more)
    assert check(monkeypatch, name, **given) == ["modified beam"]
    never_waits()


def test_transformers_are_asked_frame_by_frame(monkeypatch):
    given = {"neural_lm": neural("transformer")}
    assert check(monkeypatch, "modified_beam_search_lm_shallow_fusion", **given) == []
    assert check(monkeypatch, "ctc-prefix-beam-search-shallow-fusion", **given) == []


def word_ngram():
    lm = NgramLm.from_ngrams(word_arpa())
    return WordNgramScorer(lm, PIECES, WordWeights(0.7, 0.4, -1.0), torch.device("cpu"))


@pytest.mark.parametrize("resource", ["", "context_graph", "lodr_ngram", "word_ngram", "neural_lm", "all"])
def test_ctc_prefix_beam_search(monkeypatch, resource):
    given = {
        "neural_lm": neural("rnn", 4),
        "lodr_ngram": made_up_ngram(vocab_size=5, seed=3, share=0.8),
        "word_ngram": word_ngram(),
        "context_graph": PHRASES,
    }
    chosen = {name: value for name, value in given.items() if resource in (name, "all")}
    assert check(monkeypatch, "ctc-prefix-beam-search-shallow-fusion", vocab_size=4, **chosen) == [
        "ctc prefix"
    ]
    never_waits()


def test_unknown_words_may_be_forbidden():
    lm = NgramLm.from_ngrams(word_arpa())
    usual = WordNgramScorer(lm, PIECES, WordWeights(0.7, 0.4, float("-inf")), torch.device("cpu"))
    scorers = (usual, WordAutomatonScorer(usual, torch.device("cpu")))
    states = [scorer.start(1, 3) for scorer in scorers]
    for tokens in ([1, 1, 2], [2, 1, 2], [2, 1, 1]):  # words: abb; a a a; bb a
        token = torch.tensor([tokens])
        found = [s.extend(state, token, token > 0) for s, state in zip(scorers, states)]
        torch.testing.assert_close(found[1][0], found[0][0])
        states = [after for _, after in found]
    ends = [scorer.finish(state) for scorer, state in zip(scorers, states)]
    torch.testing.assert_close(ends[1], ends[0])
    assert ends[0].isinf().any() and ends[0].isfinite().any()


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("name", ["fast_beam_search_LG", "fast_beam_search_nbest_LG"])
def test_a_lexicon(monkeypatch, name, context_size):
    kinds = check(monkeypatch, name, vocab_size=6, context_size=context_size, lg=made_up_lg(6, 15))
    assert kinds == (["graph beam"] if context_size else ["copies on the CPU"])


def test_many_prefixes_are_searched_on_the_host(monkeypatch):
    monkeypatch.setattr(choice, "_MAX_PREFIXES", 3)
    assert check(monkeypatch, "ctc-prefix-beam-search") == []


@pytest.mark.parametrize("name", ["modified_beam_search", "ctc-prefix-beam-search", "greedy_search"])
def test_large_automata_are_not_written_out(monkeypatch, name):
    from asr_core.decoding.device import automata

    monkeypatch.setattr(automata, "_MAX_ENTRIES", 5)
    more = {} if name == "greedy_search" else {"token_ngram": made_up_ngram(vocab_size=5, order=4, share=0.8)}
    assert len(check(monkeypatch, name, context_graph=PHRASES, **more)) == 1
    never_waits()


def test_boosts_without_room_are_made_on_the_way(monkeypatch):
    from asr_core.decoding.device import automata

    monkeypatch.setattr(automata, "_MAX_BOOSTS", 5)
    assert check(monkeypatch, "greedy_search", context_graph=PHRASES) == []

"""Methods choose the searches for GPUs where the encoder's output is on one; here it is on the CPU,
and they are told otherwise.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from toy_search import random_batch, small_model
from waiting import Waiting

from asr_core.decoding.device import choice, replay
from asr_core.decoding.method import Job, Transcripts
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.context_graph import ContextGraph

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
    x, lens = random_batch(n=7, t=18)
    job = Job(
        model=SimpleNamespace(decoder=model.decoder, joiner=model.joiner),
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
    (search,) = replay._searches.values()
    with Waiting() as waiting, torch.inference_mode():
        search._frames()
    assert not waiting.found


@pytest.mark.parametrize("name", ["fast_beam_search", "beam_search", "fast_beam_search_nbest_oracle"])
@pytest.mark.parametrize("context_size", [2, None])
def test_other_searches(monkeypatch, name, context_size):
    on_device = name == "fast_beam_search" and context_size
    expected = ["fast beam"] if on_device else ["copies on the CPU"]
    assert check(monkeypatch, name, context_size=context_size) == expected


def test_tables_too_large_are_not_made(monkeypatch, ngram):
    from asr_core.decoding.device import scorers

    monkeypatch.setattr(scorers, "_MAX_ENTRIES", 5)
    assert check(monkeypatch, "modified_beam_search", token_ngram=ngram) == []
    assert check(monkeypatch, "greedy_search", context_graph=PHRASES) == []

"""Declarations of decoding methods, and that the methods keep to them."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from decode_batches import batch_of
from recognition import recognize
from tiny import tiny_model, utterances

from asr_core.decoding import offline
from asr_core.decoding.encoding import collate
from asr_core.decoding.method import BEST, Head, Job, Method
from asr_core.decoding.methods.names import MethodNames
from asr_core.decoding.offline import OfflineDecoder, encode, search
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.options import RecordOptions
from asr_core.decoding.registry import ALIASES, METHODS, check_head, get_method, resolve_method
from asr_core.decoding.resources import Resource, Resources
from asr_core.utils.errors import UserError

ALONE = [name for name, m in METHODS.items() if not (m.needs or m.references or m.attention_decoder)]


@pytest.fixture(scope="module")
def model():
    return tiny_model(False, use_ctc=True)


def test_declarations():
    options = {field.name for field in dataclasses.fields(SearchOptions)}
    for name, method in METHODS.items():
        assert method.name == name and method.uses <= options
        assert not method.needs & method.optional and method.expects_one_of <= method.optional
        assert not (method.attention_decoder and method.head is Head.TRANSDUCER)
    assert set(ALIASES.values()) <= set(METHODS) and not set(ALIASES) & set(METHODS)
    assert {resource.value for resource in Resource} == {f.name for f in dataclasses.fields(Resources)}


def test_fields_are_given_by_name():
    with pytest.raises(TypeError):
        Method("name", lambda job: {}, frozenset(), MethodNames())
    with pytest.raises(TypeError):
        Job(None, torch.zeros(1, 1, 1), torch.tensor([1]), SearchOptions())


@pytest.mark.parametrize("name", ALONE)
def test_the_answer_is_the_first_of_the_list(model, name):
    x, lens = collate(utterances(4))
    opts = SearchOptions(decoding_method=name, num_paths=20, beam_size=5)
    (best, lists) = (search(encode(model, x, lens, opts, num_best=n))[BEST] for n in (1, 5))
    assert [len(found) for found in best] == [1] * 4
    for one, several in zip(best, lists):
        assert several[0].tokens == one[0].tokens and several[0].timestamps == one[0].timestamps
        assert several[0].log_prob == pytest.approx(one[0].log_prob, abs=1e-4)
        assert len({tuple(h.tokens) for h in several}) == len(several) <= 5
    assert max(map(len, lists)) == (5 if METHODS[name].nbest else 1)


@pytest.mark.parametrize("name", ["modified_beam_search", "fast_beam_search_nbest", "ctc-decoding"])
def test_lists_take_one_search(model, name, monkeypatch):
    method, jobs = METHODS[name], []

    def counted(job):
        jobs.append(job)
        return method.search(job)

    monkeypatch.setitem(METHODS, name, dataclasses.replace(method, search=counted))
    features = utterances(3)
    decoder = OfflineDecoder(
        model=model, opts=SearchOptions(decoding_method=name), records=RecordOptions(write_nbest=2)
    )
    decoded = list(decoder.decode([batch_of(features)]))
    assert len(jobs) == 1 and jobs[0].num_best == 2
    for d in decoded:
        assert 1 <= len(d.nbest) <= 2 and d.nbest[0] == d.hypotheses[BEST]


def test_a_new_method_is_found_by_its_name(model, monkeypatch):
    """Adding a method, as documented: declare it, and put it into METHODS."""

    def reversed_greedy(job):
        found = METHODS["greedy_search"].search(job)
        return {BEST: [[h._replace(tokens=h.tokens[::-1]) for h in found_list] for found_list in found[BEST]]}

    method = Method(name="backwards", search=reversed_greedy, uses=frozenset(), names=MethodNames())
    monkeypatch.setitem(METHODS, method.name, method)
    x, lens = collate(utterances(3))
    plain = recognize(model, x, lens, SearchOptions(), False)
    other = recognize(model, x, lens, SearchOptions(decoding_method="backwards"), False)
    assert [h.tokens[::-1] for h in other] == [h.tokens for h in plain] != [h.tokens for h in other]
    assert get_method("backwards") is method


def test_unknown_methods_and_lacking_heads():
    assert get_method("alsd").name == "alignment_length_sync_search"
    with pytest.raises(UserError, match="unknown decoding method 'nonsense'; known: greedy_search, "):
        get_method("nonsense")
    only_ctc = SimpleNamespace(use_ctc=True, use_transducer=False, use_attention_decoder=False)
    check_head(only_ctc, METHODS["1best"])
    with pytest.raises(UserError, match="no transducer"):
        check_head(only_ctc, METHODS["greedy_search"])


def test_times_are_shared_out_by_duration(model, monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(offline.time, "perf_counter", lambda: float(next(ticks)))
    features = [torch.randn(n, 80) for n in (30, 90)]
    first, second = OfflineDecoder(model=model, opts=SearchOptions()).decode([batch_of(features)])
    assert first.compute_seconds == pytest.approx(0.5) and second.compute_seconds == pytest.approx(1.5)


@pytest.mark.parametrize(
    "method, given",
    [
        ("modified_beam_search", {"word_ngram": "words.arpa"}),
        ("modified_beam_search", {"lodr_ngram": "tokens.arpa"}),
        ("greedy_search", {"use_shallow_fusion": True}),
        ("fast_beam_search", {"context_file": "phrases.txt"}),
    ],
)
def test_a_file_that_a_method_does_not_use_is_refused_with_methods_that_do(method, given):
    (name,) = given
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} has no effect with {method}; these use"):
        resolve_method(SearchOptions(decoding_method=method, **given))


def test_limits_of_other_methods_may_stay_on_the_command_line():
    resolve_method(SearchOptions(decoding_method="greedy_search", beam=4.0, max_contexts=4, max_states=8))

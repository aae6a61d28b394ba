"""The look-up in back-off automata as a kernel."""

import pytest
import torch
from toy_scorers import made_up_ngram

from asr_core.decoding.device.automata import ngram_automaton, phrase_automaton
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.ops.backoff import BackOff
from asr_core.ops.gpu import dispatch


def check(automaton, states, vocab_size, shape=None):
    state = torch.arange(states).repeat_interleave(vocab_size)
    token = torch.arange(vocab_size).repeat(states)
    if shape is not None:
        state, token = state.view(shape).transpose(0, 1), token.view(shape).transpose(0, 1)
    assert dispatch.usable(automaton.arcs.weight)
    found, plain = automaton.look_up(state, token), automaton.look_up_plain(state, token)
    assert found[0].dtype == torch.float32 and found[0].shape == token.shape
    torch.testing.assert_close(found[0], plain[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[1], plain[1])


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"unk": False}, {"eos": 1}])
def test_ngrams(order, options):
    lm = made_up_ngram(order=order, vocab_size=6, **options)
    check(ngram_automaton(lm, 6, torch.device("cpu")), lm.num_states, 6, (2, -1))


@pytest.mark.parametrize("phrases", [[[2, 1], [1, 1, 2], [1, 2, 2, 1], [2, 1, 3, 4, 5]], []])
def test_phrases(phrases):
    graph = ContextGraph(phrases, 0.9, scaling="log")
    check(phrase_automaton(graph, 7, torch.device("cpu")), graph.num_states, 7)


def test_nothing_to_look_up():
    lm = made_up_ngram(order=2, vocab_size=6)
    automaton = ngram_automaton(lm, 6, torch.device("cpu"))
    assert isinstance(automaton, BackOff)
    none = torch.zeros(3, 0, dtype=torch.int64)
    assert [x.shape for x in automaton.look_up(none, none)] == [(3, 0)] * 2

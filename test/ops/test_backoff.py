"""Back-off automata on tensors: n-grams and phrases, looked up as their own classes do."""

import numpy as np
import pytest
import torch
from toy_scorers import made_up_ngram

from asr_core.decoding.device.automata import boost_rows, ngram_automaton, phrase_automaton, written_out
from asr_core.decoding.scorers.context_graph import ContextGraph, PhraseBoosts
from asr_core.lm.arpa import Arpa
from asr_core.lm.ngram import NgramLm

CPU = torch.device("cpu")
VOCAB = 9


def every(states, vocab_size=VOCAB):
    state = torch.arange(states).repeat_interleave(vocab_size)
    return state, torch.arange(vocab_size).repeat(states)


def same(automaton, state, token, score, after, looks):
    for look in looks:
        found = look(state, token)
        torch.testing.assert_close(found[0], score, atol=2e-6, rtol=1e-5)
        assert torch.equal(found[1], after.long())


def check_ngram(order, options, looks):
    lm = made_up_ngram(order=order, **options)
    automaton = ngram_automaton(lm, VOCAB, CPU)
    assert automaton.depth == order - 1 and (order == 1 or automaton.halvings > 1)
    state, token = every(lm.num_states)
    score, after = map(torch.from_numpy, lm.score_batch(state.numpy(), token.numpy()))
    same(automaton, state, token, score, after, looks(automaton))
    scaled = automaton.scaled(-0.3)
    found, _ = scaled.look_up_plain(state, token)
    torch.testing.assert_close(found, -0.3 * score, atol=2e-6, rtol=1e-5)
    return state, token


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"unk": False}, {"eos": 1}, {"eos": -1}])
def test_ngrams(order, options):
    check_ngram(
        order, options, lambda automaton: (automaton.look_up_plain, written_out(automaton, VOCAB).look_up)
    )


def test_an_unknown_word_that_no_history_has():
    """Its number, beyond those of the tokens, is no word of the next state."""
    lm = NgramLm.from_ngrams(
        Arpa(
            {"a": 1, "b": 2, "<unk>": 5},
            [np.array([[1], [2], [5]], np.int32), np.array([[1, 1], [1, 2], [2, 1]], np.int32)],
            [np.array([-1.0, -2.0, -3.0], np.float32), np.array([-0.5, -0.7, -0.9], np.float32)],
            [np.array([-0.1, -0.2, -0.3], np.float32), np.zeros(3, np.float32)],
        )
    )
    automaton = ngram_automaton(lm, 3, CPU)
    state, token = every(lm.num_states, 3)
    score, after = map(torch.from_numpy, lm.score_batch(state.numpy(), token.numpy()))
    same(automaton, state, token, score, after, [automaton.look_up_plain])


PHRASES = [[2, 1], [1, 1, 2], [1, 2, 2, 1], [2, 1, 3, 4, 5], [1, 3, 4], [3, 4, 5, 5], [4], [8, 8, 8]]


def check_phrases(phrases, scaling, looks):
    graph = ContextGraph(phrases, 0.9, scaling=scaling)
    automaton = phrase_automaton(graph, VOCAB, CPU)
    state, token = every(graph.num_states)
    same(automaton, state, token, *graph.advance(state, token), looks(automaton))
    torch.testing.assert_close(automaton.end, graph.finish(torch.arange(graph.num_states)))


@pytest.mark.parametrize("scaling", ["linear", "log"])
@pytest.mark.parametrize("phrases", [PHRASES, PHRASES[:3], [[1]], []])
def test_phrases(phrases, scaling):
    check_phrases(
        phrases, scaling, lambda automaton: (automaton.look_up_plain, written_out(automaton, VOCAB).look_up)
    )


@pytest.mark.parametrize("phrases", [PHRASES, [[1]], []])
def test_boosts_of_greedy_search(phrases):
    graph = ContextGraph(phrases, 0.9, scaling="log")
    usual = PhraseBoosts(graph, VOCAB, CPU)
    rows = usual(torch.arange(graph.num_states))
    torch.testing.assert_close(boost_rows(graph, VOCAB, CPU), rows)


def test_tokens_beyond_the_vocabulary_are_left_out():
    graph = ContextGraph([[1, 2], [1, 30], [30, 1]], 1.0)
    automaton = phrase_automaton(graph, VOCAB, CPU)
    state, token = every(graph.num_states)
    score, after = graph.advance(state, token)
    same(automaton, state, token, score, after, [automaton.look_up_plain])
    assert boost_rows(graph, VOCAB, CPU).shape == (graph.num_states, VOCAB)


def test_names():
    lm = made_up_ngram(order=2, eos=1)
    unk = lm.symbols["<unk>"]
    tokens = np.array([0, 1, 2, unk, 99, -1])
    assert lm.names_of(tokens).tolist() == [unk if lm.symbols.get("t0") is None else 0, 1, 2, unk, unk, unk]

"""Greedy search with phrases against a plain loop, and contexts too many to number."""

import math

import pytest
import torch
from golden_search import batches, golden_model, load_golden
from toy_search import first, log_probs, random_batch, small_model

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.scorers.context_graph import ContextGraph, PhraseBoosts
from asr_core.decoding.transducer import context_table as context
from asr_core.decoding.transducer.alsd import alignment_length_sync_search
from asr_core.decoding.transducer.fast_beam import fast_beam_search
from asr_core.decoding.transducer.graves_beam import graves_beam_search
from asr_core.decoding.transducer.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.transducer.modified_beam import modified_beam_search
from asr_core.decoding.transducer.predictor import CodedStates, TokenStates, predictor_states

PHRASES = [[1, 2, 3], [2, 3, 4, 1], [3, 3], [4, 1, 2]]


def boosted(history, earned=float):
    """What a phrase earns by each token that begins one after ``history`` or continues the longest
    beginning; a completed phrase is behind us.
    """
    open_from, found = 0, {}
    for end in range(1, len(history) + 1):
        if any(history[max(end - len(p), open_from) : end] == p for p in PHRASES):
            open_from = end
    rest = history[open_from:]
    for begin in reversed(range(len(rest) + 1)):
        known = len(rest) - begin
        for p in PHRASES:
            if len(p) > known and p[:known] == rest[begin:]:
                found[p[known]] = earned(known + 1) - earned(known)
    return found


@pytest.mark.parametrize("scaling, earned", [("linear", float), ("log", math.log1p)])
def test_boosts_follow_the_definition(scaling, earned):
    graph = ContextGraph(PHRASES, 0.5, scaling=scaling)
    boosts = PhraseBoosts(graph, 6, torch.device("cpu"))
    torch.manual_seed(0)
    state, history, seen = boosts.start(1), [], set()
    for token in torch.randint(1, 6, (400,)).tolist():
        row = boosts(state)[0]
        want = torch.zeros(6)
        for boosted_token, bonus in boosted(history, earned).items():
            want[boosted_token] = 0.5 * 0.5 * bonus
        assert torch.allclose(row, want)
        assert boosts.advance(state, torch.tensor([token]), torch.tensor([False])).equal(state)
        state = boosts.advance(state, torch.tensor([token]), torch.tensor([True]))
        history.append(token)
        seen.add(int(state))
    assert len(seen) > 5


@pytest.mark.parametrize("max_sym, context_size", [(1, 2), (2, 1), (1, None), (3, None)])
@torch.no_grad()
def test_greedy_with_phrases_against_a_plain_loop(max_sym, context_size):
    model, score = small_model(context_size=context_size, scale=2.0), 1.5
    x, lens = random_batch(t=30)
    opts = GreedyOptions(max_sym_per_frame=max_sym)
    plain = greedy_search(model, x, lens, opts)
    found = greedy_search(model, x, lens, opts, phrases=ContextGraph(PHRASES, score))
    for i, hyp in enumerate(found):
        tokens, times, total = [], [], 0.0
        for t in range(int(lens[i])):
            for _ in range(max_sym):
                here = log_probs(model, x[i, t], tokens)
                here[list(boosted(tokens))] += 0.5 * score
                best, token = here.max(0)
                total += float(best)
                if token == 0:
                    break
                tokens.append(int(token))
                times.append(t)
        assert (hyp.tokens, hyp.timestamps) == (tokens, times)
        assert hyp.log_prob == pytest.approx(total, rel=1e-4, abs=1e-3)
    assert [h.tokens for h in found] != [h.tokens for h in plain]


def test_greedy_with_phrases_in_batches_and_streams():
    data = load_golden()
    model = golden_model(data)
    x, lens = next(iter(batches(data, 10)))
    plain = greedy_search(model, x, lens)
    graph = ContextGraph(
        [h.tokens[k : k + 3][::-1] for h in plain for k in range(0, len(h.tokens) - 3, 5)], 4.0
    )
    together = greedy_search(model, x, lens, phrases=graph)
    streaming = StreamingGreedySearch(model, phrases=graph)
    streams = [streaming.new_stream() for _ in lens]
    for start in range(0, x.size(1), 7):
        streaming.advance(
            streams, x[:, start : start + 7], (lens - start).clamp(0, 7).clamp(max=x.size(1) - start)
        )
    for i, hyp in enumerate(together):
        (alone,) = greedy_search(model, x[i : i + 1], lens[i : i + 1], phrases=graph)
        assert alone[:2] == hyp[:2] == streams[i].hypothesis()[:2]
    assert [h.tokens for h in together] != [h.tokens for h in plain]


@torch.no_grad()
def test_contexts_too_many_to_number(monkeypatch):
    model = small_model(context_size=3, scale=1.0)
    model.joiner.output_linear.bias[0] += 2.0
    x, lens = random_batch(n=5, t=10)
    searches = (
        greedy_search,
        fast_beam_search,
        first(modified_beam_search),
        first(graves_beam_search),
        first(alignment_length_sync_search),
    )
    numbered = [search(model, x, lens) for search in searches]
    assert isinstance(predictor_states(model), CodedStates)
    monkeypatch.setattr(context, "_MAX_CODE", 100)
    assert isinstance(predictor_states(model), TokenStates)
    for search, want in zip(searches, numbered):
        found = search(model, x, lens)
        assert [h[:2] for h in found] == [h[:2] for h in want]
        assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in want], abs=1e-4)
    monkeypatch.undo()
    large = small_model(vocab_size=3000, context_size=6)
    assert isinstance(predictor_states(large), TokenStates)
    assert len(modified_beam_search(large, x, lens)) == 5

"""Alignment-length synchronous search against lists of all token sequences."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from answers import one_best
from toy_scorers import exact_score, scorer_sets
from toy_search import log_probs, random_batch, small_model

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.transducer import alsd
from asr_core.decoding.transducer.alsd import alignment_length_sync_search


def toy(seed, context_size, vocab_size=3):
    model = small_model(vocab_size=vocab_size, seed=seed, scale=1.0, context_size=context_size)
    model.joiner.output_linear.bias[0] += 3.0
    return model


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_a_wide_beam_with_merging_is_exhaustive(seed, context_size):
    model = toy(seed, context_size)
    x, _ = random_batch(n=3, t=3, seed=seed)
    lens = torch.tensor([3, 0, 2])
    sequences = [tokens for n in range(5) for tokens in itertools.product((1, 2), repeat=n)]
    for i, found in enumerate(alignment_length_sync_search(model, x, lens, BeamOptions(beam_size=128))):
        want = {
            tokens: exact_score(model, x[i, : int(lens[i])], tokens)
            for tokens in sequences[: 1 if i == 1 else None]
        }
        scores = {tuple(h.tokens): h.log_prob for h in found}
        assert len(scores) == len(found) == (1 if i == 1 else 128)
        assert found[0].tokens == list(max(want, key=want.get))
        for tokens, score in want.items():
            assert scores[tokens] == pytest.approx(score, abs=1e-3)
        assert [h.log_prob for h in found] == sorted(scores.values(), reverse=True)
        assert all(h.timestamps == sorted(h.timestamps) and len(h.timestamps) == len(h.tokens) for h in found)


@pytest.mark.parametrize(
    "name, context_size", [("phrases", 2), ("phrases", None), ("transformer", 2), ("all", 2)]
)
@torch.no_grad()
def test_scorers_against_all_sequences(ngram, name, context_size):
    scorers, by_hand = scorer_sets(ngram)[name]
    model = toy(1, context_size)
    x = random_batch(n=2, t=3, seed=1)[0][:1]
    (found,) = alignment_length_sync_search(
        model, x, torch.tensor([3]), BeamOptions(beam_size=100), scorers=scorers
    )
    sequences = [tokens for n in range(5) for tokens in itertools.product((1, 2), repeat=n)]
    want = {tokens: exact_score(model, x[0], tokens) + by_hand(tokens) for tokens in sequences}
    scores = {tuple(h.tokens): h.log_prob for h in found}
    ranked = sorted(want, key=lambda k: -want[k])
    assert found[0].tokens == list(ranked[0])
    assert [scores[tokens] for tokens in ranked[:10]] == pytest.approx(
        [want[tokens] for tokens in ranked[:10]], abs=2e-3
    )


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("context_size", [2, None])
@torch.no_grad()
def test_batch_equals_one_at_a_time(merge, context_size):
    model = toy(0, context_size, vocab_size=6)
    x, lens = random_batch(n=6, t=20)
    opts = BeamOptions(beam_size=5, blank_penalty=2.0)
    together = alignment_length_sync_search(model, x, lens, opts, merge=merge)
    for i, found in enumerate(together):
        (alone,) = alignment_length_sync_search(
            model, x[i : i + 1, : int(lens[i])], lens[i : i + 1], opts, merge=merge
        )
        assert [h[:2] for h in alone] == [h[:2] for h in found]
        assert [h.log_prob for h in alone] == pytest.approx([h.log_prob for h in found], abs=1e-3)
        assert len({tuple(h.tokens) for h in found}) == len(found)
    assert sum(len(found[0].tokens) for found in together) > 10
    for most in (1, 3):
        few = alignment_length_sync_search(
            model, x, lens, dataclasses.replace(opts, num_best=most), merge=merge
        )
        assert few == [found[:most] for found in together]


@torch.no_grad()
def test_without_merging_a_score_is_that_of_one_alignment():
    model = toy(2, 2)
    x = random_batch(n=2, t=3, seed=2)[0][:1]
    found = alignment_length_sync_search(
        model, x, torch.tensor([3]), BeamOptions(beam_size=300), merge=False
    )[0]
    for h in found[:10]:
        best = float("-inf")
        for frames in itertools.combinations_with_replacement(range(3), len(h.tokens)):
            score, before = 0.0, 0
            for t in range(3):
                here = before + frames.count(t)
                for u in range(before, here):
                    score += float(log_probs(model, x[0, t], h.tokens[:u])[h.tokens[u]])
                score += float(log_probs(model, x[0, t], h.tokens[:here])[0])
                before = here
            best = max(best, score)
        assert h.log_prob == pytest.approx(best, abs=1e-3)


@torch.no_grad()
def test_long_answers_are_not_cut_in_silence(monkeypatch, caplog):
    model = toy(0, 2)
    x, _ = random_batch(n=2, t=12)
    lens = torch.tensor([12, 12])
    eager = BeamOptions(blank_penalty=3.0)
    plain = one_best(alignment_length_sync_search(model, x, lens))
    assert not caplog.messages
    more = one_best(alignment_length_sync_search(model, x, lens, eager))
    assert sum(len(h.tokens) for h in more) > sum(len(h.tokens) for h in plain)
    monkeypatch.setattr(alsd, "LABELS_PER_FRAME", 0)
    monkeypatch.setattr(alsd, "FURTHER_LABELS", 2)
    short = one_best(alignment_length_sync_search(model, x, lens, eager))
    assert [len(h.tokens) for h in short] == [2, 2] and "2 of 2 utterances" in caplog.text


@torch.no_grad()
def test_a_model_that_computes_no_numbers():
    x, lens = random_batch(n=2, t=5)[0], torch.tensor([5, 5])
    x[1] = float("nan")
    for search, model in (
        (alignment_length_sync_search, toy(0, 2)),
        (ctc_prefix_beam_search, SimpleNamespace(ctc_output=lambda y: y)),
    ):
        fine, broken = one_best(search(model, x.log_softmax(-1), lens, BeamOptions(beam_size=3)))
        assert fine.log_prob > float("-inf") and broken[:3] == ([], [], float("-inf"))

"""Modified beam search with language models and phrases, its rescoring, and Graves' search, against
lists of all hypotheses.
"""

import itertools
from collections import defaultdict

import pytest
import torch
from answers import one_best
from toy_scorers import exact_score, neural, scorer_sets
from toy_search import all_paths, initial_length, log_sum, random_batch, small_model

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.scorers.rescoring import LM_SCALES, LODR_LM_SCALES, LODR_SCALES, rescore
from asr_core.decoding.transducer.graves_beam import graves_beam_search
from asr_core.decoding.transducer.modified_beam import StreamingBeamSearch, modified_beam_search


def totals(model, x):
    """Log-probability of each token sequence."""
    by_tokens = defaultdict(list)
    for labels, score in all_paths(model, x, 3):
        by_tokens[tuple(k for k in labels if k)].append(score)
    return {tokens: log_sum(scores) for tokens, scores in by_tokens.items()}


@pytest.mark.parametrize("name", ["phrases", "rnn", "transformer", "lodr", "all"])
@pytest.mark.parametrize("seed, context_size", [(0, 2), (1, 2), (2, None)])
@torch.no_grad()
def test_scorers_against_all_sequences(ngram, name, seed, context_size):
    scorers, by_hand = scorer_sets(ngram)[name]
    model = small_model(vocab_size=3, seed=seed, scale=1.0, context_size=context_size)
    x, _ = random_batch(n=4, t=4, seed=seed)
    lens = torch.tensor([4, 0, 3, 4])
    plain = one_best(modified_beam_search(model, x, lens, BeamOptions(beam_size=60)))
    found = one_best(modified_beam_search(model, x, lens, BeamOptions(beam_size=60), scorers=scorers))
    for i, hyp in enumerate(found):
        total = {
            tokens: score + by_hand(tokens) for tokens, score in totals(model, x[i, : int(lens[i])]).items()
        }
        best = max(total, key=lambda k: total[k] / (len(k) + initial_length(model)))
        assert tuple(hyp.tokens) == best
        assert hyp.log_prob == pytest.approx(total[best], abs=1e-3)
    assert [h.log_prob for h in found] != pytest.approx([h.log_prob for h in plain])


@pytest.mark.parametrize("name", ["phrases", "rnn", "transformer", "lodr", "all"])
@torch.no_grad()
def test_scorers_in_batches_and_streams(ngram, name):
    scorers, _ = scorer_sets(ngram)[name]
    model = small_model(vocab_size=3, scale=1.5)
    x, lens = random_batch(n=7, t=18)
    together = one_best(modified_beam_search(model, x, lens, scorers=scorers))
    streaming = StreamingBeamSearch(model, scorers=scorers)
    streams = [streaming.new_stream() for _ in lens]
    for start in range(0, 18, 5):
        streaming.advance(
            streams, x[:, start : start + 5], (lens - start).clamp(0, 5).clamp(max=x.size(1) - start)
        )
    for i, hyp in enumerate(together):
        ((alone, *_),) = modified_beam_search(model, x[i : i + 1], lens[i : i + 1], scorers=scorers)
        for other in (alone, streams[i].hypothesis()):
            assert other[:2] == hyp[:2] and other.log_prob == pytest.approx(hyp.log_prob, abs=1e-3)
    assert sum(len(h.tokens) for h in together) > 15


@torch.no_grad()
def test_nbest_lists_every_sequence():
    model = small_model(vocab_size=3)
    x, _ = random_batch(n=3, t=4)
    for i, hyps in enumerate(
        modified_beam_search(model, x, torch.tensor([4, 0, 2]), BeamOptions(beam_size=60))
    ):
        want = totals(model, x[i, : [4, 0, 2][i]])
        assert {tuple(h.tokens): h.log_prob for h in hyps} == pytest.approx(want, abs=1e-4)
        per_token = [h.log_prob / (len(h.tokens) + initial_length(model)) for h in hyps]
        assert per_token == sorted(per_token, reverse=True)


@pytest.mark.parametrize("with_ngram, kind", [(False, "rnn"), (True, "rnn"), (False, "transformer")])
@torch.no_grad()
def test_rescoring(ngram, with_ngram, kind):
    model, lm = small_model(vocab_size=3), neural(kind)
    for p in lm.parameters() if kind == "transformer" else ():
        p.mul_(2.0)  # else it changes no choice
    x, lens = random_batch(n=5, t=12)
    nbest = modified_beam_search(model, x, lens, BeamOptions(beam_size=6))
    found = rescore(nbest, lm, ngram if with_ngram else None)
    assert len(found) == (len(LODR_LM_SCALES) * len(LODR_SCALES) if with_ngram else len(LM_SCALES))
    names = [("nnlm_scale_0.04_lodr_scale_0.95", 0.04, 0.95), ("nnlm_scale_0.58_lodr_scale_0.05", 0.58, 0.05)]
    for name, scale, lodr in (
        names if with_ngram else [("nnlm_scale_0.10", 0.1, 0), ("nnlm_scale_0.49", 0.49, 0)]
    ):
        for hyps, chosen in zip(nbest, found[name]):
            lm_scores = lm.sentence_log_probs([h.tokens for h in hyps]).tolist()
            if with_ngram:
                scores = [
                    h.log_prob / scale + s - lodr * ngram.sentence_log_prob(h.tokens)
                    for h, s in zip(hyps, lm_scores)
                ]
            else:
                scores = [h.log_prob + scale * s for h, s in zip(hyps, lm_scores)]
            assert chosen == hyps[scores.index(max(scores))]
    assert any([h.tokens for h in a] != [h.tokens for h in b] for a in found.values() for b in found.values())


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_graves_search_against_all_sequences(seed, context_size):
    """The score is that of all alignments, and no sequence of up to four tokens has a better one
    per token.
    """
    model = small_model(vocab_size=3, seed=seed, scale=1.5, context_size=context_size)
    model.joiner.output_linear.bias[0] += 3.0
    x, _ = random_batch(n=3, t=3, seed=seed)
    lens = torch.tensor([3, 0, 2])
    for i, hyp in enumerate(one_best(graves_beam_search(model, x, lens, BeamOptions(beam_size=60)))):
        frames = x[i, : int(lens[i])]
        exact = exact_score(model, frames, hyp.tokens)
        assert exact - 0.05 <= hyp.log_prob <= exact + 1e-4
        listed = [tokens for n in range(5) for tokens in itertools.product((1, 2), repeat=n)]
        best = max(
            exact_score(model, frames, tokens) / (len(tokens) + initial_length(model)) for tokens in listed
        )
        assert hyp.log_prob / (len(hyp.tokens) + initial_length(model)) >= best - 0.01
        assert hyp.timestamps == sorted(hyp.timestamps) and len(hyp.timestamps) == len(hyp.tokens)


@pytest.mark.parametrize("context_size", [2, None])
@torch.no_grad()
def test_graves_search_one_at_a_time_and_penalty(context_size):
    model = small_model(vocab_size=4, scale=1.5, context_size=context_size)
    model.joiner.output_linear.bias[0] += 3.0
    x, lens = random_batch(n=4, t=8)
    together = one_best(graves_beam_search(model, x, lens))
    alone = [graves_beam_search(model, x[i : i + 1], lens[i : i + 1])[0][0] for i in range(4)]
    assert [h[:2] for h in together] == [h[:2] for h in alone]
    more = one_best(graves_beam_search(model, x, lens, BeamOptions(blank_penalty=2.0)))
    assert sum(len(h.tokens) for h in more) > sum(len(h.tokens) for h in together)


@torch.no_grad()
def test_graves_search_ends_where_a_model_does_not(caplog):
    model = small_model(vocab_size=4, context_size=None)
    model.joiner.output_linear.bias[0] -= 50.0
    x, lens = random_batch(n=2, t=5)
    found = one_best(graves_beam_search(model, x, lens, BeamOptions(beam_size=2)))
    assert len(found[0].tokens) >= 5 and found[1].tokens == [] and "without end at 5 frames" in caplog.text

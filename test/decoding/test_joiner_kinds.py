"""Searches of transducers whose joiner multiplies or gates, or whose blank is factorised, against
lists of all hypotheses.
"""

import dataclasses
from collections import defaultdict

import pytest
import torch
from answers import one_best
from toy_search import all_paths, initial_length, log_probs, log_sum, random_batch, small_model

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions, LogitOptions
from asr_core.decoding.transducer.fast_beam import fast_beam_search
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.decoding.transducer.internal_lm import internal_log_probs
from asr_core.decoding.transducer.modified_beam import modified_beam_search
from asr_core.models.joiner import Joiner

KINDS = [("add", "hat"), ("multiply", "classic"), ("multiply", "hat"), ("gated", "classic"), ("gated", "hat")]
kinds = pytest.mark.parametrize("mode, kind", KINDS)
WIDE = FastBeamOptions(beam=1000.0, max_contexts=100, max_states=100)


def model_of(mode, kind, vocab_size=3, scripted=False):
    model = small_model(vocab_size)
    torch.manual_seed(3)
    joiner = Joiner(8, 8, 8, vocab_size, mode=mode, transducer_type=kind, blank_logit_bias=0.5).eval()
    for p in joiner.parameters():
        p.data.normal_(0, 1.0)
    model.joiner = torch.jit.script(joiner) if scripted else joiner
    return model


@kinds
@torch.no_grad()
def test_greedy_search(mode, kind):
    model = model_of(mode, kind, vocab_size=5)
    x, lens = random_batch(t=20)
    for i, hyp in enumerate(greedy_search(model, x, lens)):
        tokens, score = [], 0.0
        for frame in x[i, : lens[i]]:
            best, token = log_probs(model, frame, tokens).max(0)
            score += float(best)
            tokens += [int(token)] * int(token != 0)
        assert hyp.tokens == tokens and hyp.log_prob == pytest.approx(score, rel=1e-4, abs=1e-4)


@kinds
@pytest.mark.parametrize("scripted", [False, True])
@torch.no_grad()
def test_wide_beams_are_exhaustive(mode, kind, scripted):
    model, eager = model_of(mode, kind, scripted=scripted), model_of(mode, kind)
    x, _ = random_batch(n=2, t=4)
    lens = torch.tensor([4, 3])
    beams = one_best(modified_beam_search(model, x, lens, BeamOptions(beam_size=40)))
    fast = fast_beam_search(model, x, lens, WIDE)
    for i in range(2):
        paths = all_paths(eager, x[i, : lens[i]], 3)
        by_tokens = defaultdict(list)
        for labels, score in paths:
            by_tokens[tuple(k for k in labels if k)].append(score)
        best = max(by_tokens, key=lambda k: log_sum(by_tokens[k]) / (len(k) + initial_length(eager)))
        assert tuple(beams[i].tokens) == best
        assert beams[i].log_prob == pytest.approx(log_sum(by_tokens[best]), abs=1e-4)
        labels, score = max(paths, key=lambda path: path[1])
        assert fast[i].tokens == [k for k in labels if k] and fast[i].log_prob == pytest.approx(
            score, abs=1e-4
        )


@kinds
@torch.no_grad()
def test_subtracting_the_internal_language_model(mode, kind):
    model = model_of(mode, kind)
    x, _ = random_batch(n=2, t=4)
    scale, lens = 0.4, torch.tensor([4, 4])

    def internal(history):
        context = torch.tensor([([-1, 0, *history])[-2:]])
        decoder_out = model.joiner.decoder_proj(model.decoder(context, need_pad=False)[:, 0])
        logits = model.joiner.internal_lm(decoder_out)[0]
        found = internal_log_probs(model.joiner, decoder_out, 0, LogitOptions())[0]
        if kind == "hat":  # a distribution over tokens alone
            assert found[0] == 0.0 and found[1:].exp().sum() == pytest.approx(1.0)
        else:
            assert torch.equal(found, logits.log_softmax(-1))
        return found

    for i, hyp in enumerate(fast_beam_search(model, x, lens, dataclasses.replace(WIDE, ilme_scale=scale))):
        totals = {}
        for labels, score in all_paths(model, x[i], 3):
            for t, label in enumerate(labels):
                score -= scale * float(internal([k for k in labels[:t] if k])[label])
            totals[labels] = score
        best = max(totals, key=totals.get)
        assert hyp.tokens == [k for k in best if k] and hyp.log_prob == pytest.approx(totals[best], abs=1e-4)

"""Confidences: the distributions out of which tokens were chosen, measures of them, and their
calibration.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from answers import one_best
from recognition import answers
from tiny import OPTIONS, PIECES, tiny_model, utterances
from toy_search import log_probs, random_batch, small_model

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.confidence import (
    ConfidentSearch,
    measure,
    token_log_probs,
    with_confidences,
)
from asr_core.decoding.ctc.greedy import ctc_greedy_search
from asr_core.decoding.encoding import collate
from asr_core.decoding.method import Job
from asr_core.decoding.offline import encode, search
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.calibration import (
    Calibration,
    expected_calibration_error,
    fit,
    load_calibrations,
    normalized_cross_entropy,
    right_words,
    save_calibrations,
)
from asr_core.decoding.output.options import ConfidenceOptions
from asr_core.decoding.output.word_confidence import aggregate
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.decoding.transducer.modified_beam import modified_beam_search
from asr_core.encoders.chunk_options import Chunk
from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

PROB = ConfidenceOptions()


def greedy_posteriors(model, frames, most, blank_penalty, temperature):
    """Greedy search written as a loop: tokens, their frames and posteriors."""
    tokens, times, posteriors = [], [], []
    for t, frame in enumerate(frames):
        for _ in range(most):
            logits = log_probs(model, frame, tokens)
            logits[0] -= blank_penalty
            p = (logits / temperature).softmax(-1)
            best = int(p.argmax())
            if best == 0:
                break
            tokens.append(best)
            times.append(t)
            posteriors.append(float(p[best]))
    return tokens, times, posteriors


@pytest.mark.parametrize("context_size", [1, 2, None], ids=["context-1", "context-2", "lstm"])
@pytest.mark.parametrize("most, penalty, temperature", [(1, 0.0, 1.0), (3, 0.7, 1.6)])
@torch.no_grad()
def test_posteriors_of_greedy_search(context_size, most, penalty, temperature):
    model = small_model(context_size=context_size, scale=3.0 if context_size else 1.5)
    x, lens = random_batch()
    opts = SearchOptions(max_sym_per_frame=most, blank_penalty=penalty, temperature=temperature)
    greedy = GreedyOptions(max_sym_per_frame=most, blank_penalty=penalty, temperature=temperature)
    found = greedy_search(model, x, lens, greedy)
    job = Job(model=model, encoder_out=x, lens=lens, opts=opts)
    sure = with_confidences(job, range(len(lens)), found, PROB)
    assert sum(len(h.tokens) for h in found) > 5
    for i, hyp in enumerate(sure):
        tokens, times, posteriors = greedy_posteriors(model, x[i, : lens[i]], most, penalty, temperature)
        assert (hyp.tokens, hyp.timestamps) == (tokens, times) and hyp[:4] == found[i][:4]
        assert hyp.confidences == pytest.approx(posteriors, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"transducer_type": "hat"}, {"predictor": "lstm", "predictor_hidden_dim": 24}],
    ids=["hat", "lstm"],
)
@torch.no_grad()
def test_models_of_other_kinds(options):
    torch.manual_seed(1)
    model = build_model(from_params(ModelOptions, {**OPTIONS, **options}), vocab_size=len(PIECES)).eval()
    model.joiner.output_linear.weight.mul_(10)
    model.joiner.output_linear.bias[0] -= 2
    x, lens = 8 * torch.randn(3, 12, 48), torch.tensor([12, 7, 0])
    found = greedy_search(model, x, lens)
    each = token_log_probs(Job(model=model, encoder_out=x, lens=lens, opts=SearchOptions()), range(3), found)
    assert sum(len(h.tokens) for h in found) > 3 and found[2].tokens == []
    for hyp, rows in zip(found, each):
        assert torch.logsumexp(rows, 1) == pytest.approx(torch.zeros(len(rows)), abs=1e-5)
        assert rows.argmax(1).tolist() == hyp.tokens  # greedy takes the best


@torch.no_grad()
def test_hypotheses_of_other_searches_and_in_any_order():
    model = small_model()
    x, lens = random_batch()
    job = Job(
        model=model,
        encoder_out=x,
        lens=lens,
        opts=SearchOptions(decoding_method="modified_beam_search"),
    )
    found = one_best(modified_beam_search(model, x, lens))
    rows = [*range(len(lens))] * 40  # more than fit into one batch
    many = with_confidences(job, rows, found * 40, PROB)
    alone = [with_confidences(job, [i], [found[i]], PROB)[0] for i in range(len(lens))]
    assert [h.confidences for h in many[-len(lens) :]] == [
        pytest.approx(h.confidences, abs=1e-6) for h in alone
    ]
    assert with_confidences(job, [], [], PROB) == []


def test_ctc_posteriors():
    frames = (2 * torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    model, lens = SimpleNamespace(ctc_output=lambda x: x), torch.tensor([9, 4])
    job = Job(
        model=model,
        encoder_out=frames,
        lens=lens,
        opts=SearchOptions(decoding_method="ctc-greedy-search"),
    )
    found = ctc_greedy_search(model, frames, lens)
    for i, hyp in enumerate(with_confidences(job, range(2), found, PROB)):
        assert hyp.tokens and hyp.confidences == pytest.approx(
            [float(frames[i, t, k].exp()) for t, k in zip(hyp.timestamps, hyp.tokens)]
        )


def test_streaming_confidences_are_those_of_simulated_streaming():
    model = tiny_model(causal=True)
    model.set_chunk(16, 32)
    features, opts = utterances(7), SearchOptions()
    job = encode(model, *collate(features), opts, chunk=Chunk(16, 64))
    simulated = with_confidences(job, range(7), answers(search(job)), PROB)
    batch = StreamBatch(model, ConfidentSearch(streaming_search(model, opts), model, opts, PROB), 16)
    real = dict(decode_streams(batch, enumerate(features), 3))
    assert sum(len(h.tokens) for h in simulated) > 20
    for i, hyp in enumerate(simulated):
        assert real[i].timestamps == hyp.timestamps and real[i].confidences == pytest.approx(
            hyp.confidences, abs=1e-4
        )


@pytest.mark.parametrize("name", ["gibbs", "tsallis", "renyi"])
def test_entropy_measures(name):
    opts = ConfidenceOptions(confidence_measure=name, confidence_alpha=0.4)
    p = np.array([0.7, 0.2, 0.06, 0.04])
    entropy = {
        "gibbs": -(p * np.log(p)).sum(),
        "tsallis": (1 - (p**0.4).sum()) / (0.4 - 1),
        "renyi": np.log((p**0.4).sum()) / (1 - 0.4),
    }[name]
    most = {"gibbs": math.log(4), "tsallis": (1 - 4**0.6) / (0.4 - 1), "renyi": math.log(4)}[name]
    want = (math.exp(-entropy) - math.exp(-most)) / (1 - math.exp(-most))
    rows = torch.tensor(np.stack([p, np.full(4, 0.25), [1, 0, 0, 0]])).log()
    assert measure(rows, torch.tensor([0, 0, 0]), opts).tolist() == pytest.approx([want, 0, 1], abs=1e-12)


def test_words_from_tokens():
    assert [aggregate([0.5, 0.9, 0.4], how) for how in ("min", "mean", "prod")] == pytest.approx(
        [0.4, 0.6, 0.18]
    )


def test_calibration_finds_the_map():
    rng = np.random.default_rng(0)
    c = rng.uniform(0.02, 0.98, 20000)
    true = Calibration(2.0, 1.0)
    right = rng.random(len(c)) < [true(x) for x in c]
    found = fit(c, right)
    assert found.scale == pytest.approx(2.0, abs=0.1) and found.offset == pytest.approx(1.0, abs=0.1)
    assert (found.words, found.wrong) == (20000, int((~right).sum()))
    after = [found(x) for x in c]
    assert expected_calibration_error(after, right) < 0.015 < expected_calibration_error(c, right)
    assert normalized_cross_entropy(after, right) > normalized_cross_entropy(c, right)
    assert np.all(np.diff([found(x) for x in np.linspace(0, 1, 50)]) >= 0)


def test_calibration_of_few_or_separable_words():
    found = fit([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert math.isfinite(found.scale) and found(0.9) > 0.9 > 0.1 > found(0.1)
    upside_down = fit([0.9, 0.8, 0.1, 0.2], [False, False, True, True])
    assert 0 < upside_down.scale < 0.1 and upside_down(0.5) == pytest.approx(
        0.5, abs=0.05
    )  # monotone: such confidences say nothing
    for right in ([True, True], [False, False], []):
        with pytest.raises(UserError, match="calibration needs both kinds"):
            fit([0.5] * len(right), right)


def test_figures_of_merit():
    right = [True, True, True, False]
    assert expected_calibration_error([0.75] * 4, right) == pytest.approx(0)
    assert expected_calibration_error([1.0, 1.0, 0.5, 0.5], right) == pytest.approx(0)
    assert expected_calibration_error([1.0] * 4, right) == pytest.approx(0.25)
    assert normalized_cross_entropy([0.75] * 4, right) == pytest.approx(0)
    assert normalized_cross_entropy([1, 1, 1, 0], right) == pytest.approx(1, abs=1e-4)
    assert normalized_cross_entropy([0.1] * 4, right) < 0 and math.isnan(
        normalized_cross_entropy([0.9], [True])
    )


def test_which_words_are_right():
    assert right_words("a b c".split(), "a x c d".split()) == [True, False, True, False]
    assert right_words([], ["a"]) == [False] and right_words(["a"], []) == []


def test_calibrations_are_stored(tmp_path):
    assert load_calibrations(tmp_path) == {}
    maps = {"greedy_search prob min": Calibration(1.5, -0.25, 100, 7)}
    path = save_calibrations(tmp_path, maps)
    assert load_calibrations(tmp_path) == maps
    for text in (
        "{",
        '{"x": 1}',
        '{"x": {"scale": -1, "offset": 0}}',
        "[]",
        '{"x": {"scale": NaN, "offset": 0}}',
    ):
        path.write_text(text)
        with pytest.raises(UserError, match="confidence.json is damaged"):
            load_calibrations(tmp_path)

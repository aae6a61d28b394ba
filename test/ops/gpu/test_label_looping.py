"""Greedy search in one launch, against the search for the CPU."""

import pytest
import torch
from toy_search import random_batch, small_model

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.device import replay
from asr_core.decoding.device.label_looping import OneLaunch, label_looping_search
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.models.joiner import Joiner
from asr_core.ops.gpu import dispatch

kernels = dispatch.deferred("label_looping")


def usual_model(vocab_size=5, dim=8, **options):
    """With the library's own joiner."""
    model = small_model(vocab_size, dim=dim, **options)
    joiner = Joiner(dim, dim, dim, vocab_size)
    joiner.load_state_dict(model.joiner.state_dict())
    model.joiner = joiner.eval()
    return model


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def compare(model, x, lens, opts=GreedyOptions()):
    found, usual = label_looping_search(model, x, lens, opts), greedy_search(model, x, lens, opts)
    assert any(isinstance(search, OneLaunch) for search in replay._searches.values())
    assert [(h.tokens, h.timestamps) for h in found] == [(h.tokens, h.timestamps) for h in usual]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in usual], rel=1e-4, abs=1e-4)
    return sum(len(h.tokens) for h in usual)


@pytest.mark.parametrize("max_sym", [1, 2, 3])
@pytest.mark.parametrize("context_size", [1, 2])
def test_equals_greedy_search(context_size, max_sym):
    model = usual_model(context_size=context_size)
    x, lens = random_batch(n=4, t=35)
    assert compare(model, x, lens, GreedyOptions(max_sym_per_frame=max_sym)) > 20


@pytest.mark.parametrize("vocab_size, dim", [(20, 8), (5, 40), (300, 8)])
def test_sizes_that_fill_no_block(vocab_size, dim):
    model = usual_model(vocab_size, dim=dim, context_size=1, scale=2.0)
    x, lens = random_batch(n=3, t=20, dim=dim)
    compare(model, x, lens)


def test_penalty_and_temperature():
    model = usual_model()
    x, lens = random_batch(n=3)
    plain = compare(model, x, lens)
    assert compare(model, x, lens, GreedyOptions(blank_penalty=3.0, temperature=1.7)) > plain


def test_few_tokens_in_long_silence():
    model = usual_model()
    with torch.no_grad():
        model.joiner.output_linear.bias[0] += 5.0
    x, lens = random_batch(n=3, t=120)
    assert 0 < compare(model, x, lens) < 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    x, rows, weight = (torch.randn(*shape).to(dtype) for shape in ((8, 20, 24), (37, 24), (36, 24)))
    lens, contexts = torch.arange(1, 21, 2)[:8], kernels.Contexts(1, 37, 1)
    half, full = (
        kernels.label_looping(
            x.to(kind),
            lens,
            rows.to(kind),
            kernels.output_of(weight.to(kind), torch.zeros(36)),
            contexts,
            blank=0,
            max_sym=1,
            blank_penalty=-4.0,
        )
        for kind in (dtype, torch.float32)
    )
    torch.testing.assert_close(half.score, full.score, rtol=0.02, atol=0.02)
    same = [torch.equal(a[:n], b[:n]) for a, b, n in zip(half.tokens, full.tokens, full.number.tolist())]
    assert full.number.sum() > 20 and sum(same) >= 6


def test_other_joiners_and_predictors_take_the_other_road():
    assert OneLaunch.of(usual_model()) is not None
    assert OneLaunch.of(usual_model(context_size=None)) is None
    model = usual_model()
    model.joiner.mode = "multiply"
    assert OneLaunch.of(model) is None

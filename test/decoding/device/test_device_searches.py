"""Searches with fixed shapes and without waiting, on CPU tensors: they find what the usual ones
find.
"""

import pytest
import torch
from golden_search import batches, golden_model, load_golden
from toy_search import random_batch, small_model
from waiting import Waiting

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions, GreedyOptions
from asr_core.decoding.device import replay
from asr_core.decoding.device.beam import fast_beam_search_on_device, modified_beam_search_on_device
from asr_core.decoding.device.label_looping import label_looping_search
from asr_core.decoding.transducer.fast_beam import fast_beam_search
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.decoding.transducer.modified_beam import modified_beam_search

CONTEXTS = [1, 2, None]  # None: an LSTM predictor


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def exact_model(context_size):
    """In double precision: an LSTM's rounding errors depend on the batch, and grow."""
    return small_model(context_size=context_size).double()


def same(found, usual):
    assert len(found) == len(usual)
    for a, b in zip(found, usual):
        assert (a.tokens, a.timestamps) == (b.tokens, b.timestamps)
        assert a.log_prob == pytest.approx(b.log_prob, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("max_sym", [1, 2, 3])
@pytest.mark.parametrize("context_size", CONTEXTS)
def test_label_looping_equals_greedy_search(context_size, max_sym):
    model = exact_model(context_size)
    opts = GreedyOptions(max_sym_per_frame=max_sym)
    tokens = 0
    for n, t in ((6, 15), (1, 40), (40, 3), (9, 130)):
        x, lens = random_batch(n=max(n, 2), t=t, seed=n)
        x, lens = x[:n].double(), lens[:n]
        usual = greedy_search(model, x, lens, opts)
        same(label_looping_search(model, x, lens, opts), usual)
        tokens += sum(len(h.tokens) for h in usual)
    assert tokens > 100


def test_label_looping_with_penalty_and_temperature():
    model = small_model()
    x, lens = random_batch()
    for opts in (GreedyOptions(blank_penalty=1.5), GreedyOptions(temperature=2.0)):
        same(label_looping_search(model, x, lens, opts), greedy_search(model, x, lens, opts))


def test_nothing_to_search():
    model = small_model()
    for search in (label_looping_search, fast_beam_search_on_device):
        assert search(model, torch.zeros(0, 4, 8), torch.zeros(0, dtype=torch.int64)) == []
        assert [h[:3] for h in search(model, torch.zeros(2, 0, 8), torch.tensor([0, 0]))] == [
            ([], [], 0.0)
        ] * 2
    lists = modified_beam_search_on_device(model, torch.zeros(2, 3, 8), torch.tensor([0, 0]))
    assert [[h[:3] for h in hyps] for hyps in lists] == [[([], [], 0.0)]] * 2


@pytest.mark.parametrize("beam", [1, 4, 7])
@pytest.mark.parametrize("context_size", CONTEXTS)
def test_modified_beam_search(context_size, beam):
    model = exact_model(context_size)
    for n, t in ((6, 15), (12, 40), (2, 33)):
        x, lens = random_batch(n=n, t=t, seed=t)
        x = x.double()
        opts = BeamOptions(beam_size=beam)
        found = modified_beam_search_on_device(model, x, lens, opts)
        usual = modified_beam_search(model, x, lens, opts)
        assert len(found) == len(usual)
        for a, b in zip(found, usual):
            same(a, b)


@pytest.mark.parametrize("limits", [(20.0, 8, 64), (4.0, 4, 8), (3.0, 6, 3), (20.0, 1, 1)])
@pytest.mark.parametrize("ilme_scale", [0.0, 0.3])
@pytest.mark.parametrize("context_size", [1, 2])
def test_fast_beam_search(context_size, ilme_scale, limits):
    model = small_model(context_size=context_size, scale=2.0)
    opts = FastBeamOptions(*[0.0, 1.0], *limits, ilme_scale=ilme_scale)
    for n, t in ((6, 15), (12, 40)):
        x, lens = random_batch(n=n, t=t, seed=t)
        same(fast_beam_search_on_device(model, x, lens, opts), fast_beam_search(model, x, lens, opts))


def test_the_reference_model():
    data = load_golden()
    model = golden_model(data)
    x, lens = next(iter(batches(data, 20)))
    same(label_looping_search(model, x, lens), greedy_search(model, x, lens))
    same(fast_beam_search_on_device(model, x, lens), fast_beam_search(model, x, lens))
    for found, usual in zip(
        modified_beam_search_on_device(model, x, lens), modified_beam_search(model, x, lens)
    ):
        same(found, usual)


def test_searches_are_kept_until_the_weights_change():
    model = small_model()
    x, lens = random_batch()
    first = label_looping_search(model, x, lens)
    assert len(replay._searches) == 1
    same(label_looping_search(model, x, lens), first)
    assert len(replay._searches) == 1
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(-1)
    same(label_looping_search(model, x, lens), greedy_search(model, x, lens))
    assert len(replay._searches) == 1


def test_contexts_too_many_to_list(monkeypatch):
    from asr_core.decoding.device import predictor

    monkeypatch.setattr(predictor, "_MAX_ROWS", 3)
    model = small_model()
    x, lens = random_batch()
    same(label_looping_search(model, x, lens), greedy_search(model, x, lens))
    same(fast_beam_search_on_device(model, x, lens), fast_beam_search(model, x, lens))


@pytest.mark.parametrize("context_size", CONTEXTS)
def test_nothing_in_a_graph_waits_for_the_device(context_size):
    model = small_model(context_size=context_size)
    x, lens = random_batch()
    label_looping_search(model, x, lens, GreedyOptions(max_sym_per_frame=2, blank_penalty=1.0))
    modified_beam_search_on_device(model, x, lens, BeamOptions(temperature=2.0))
    if context_size is not None:
        fast_beam_search_on_device(model, x, lens, FastBeamOptions(ilme_scale=0.1))
    for search in replay._searches.values():
        repeated = search._rounds if hasattr(search, "_rounds") else search._frames
        with Waiting() as waiting, torch.inference_mode():
            repeated()
        assert waiting.calls > 16 * 10
        assert not waiting.found


def test_waiting_is_noticed():
    x = torch.tensor([1.0, -1.0])
    for waits in (
        lambda: x[x > 0],
        lambda: bool(x.any()),
        lambda: torch.where(x > 0, x, 0.0),
        lambda: (x > 0).nonzero(),
        lambda: int(x.max()),
        lambda: torch.tensor([1]),
    ):
        with Waiting() as waiting:
            waits()
        assert waiting.found

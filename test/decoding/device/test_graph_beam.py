"""Fast beam search with a graph, with fixed shapes and without waiting, on CPU tensors: it finds
what the usual one finds.
"""

import numpy as np
import pytest
import torch
from made_up_resources import made_up_lg
from toy_graph import fsa_of
from toy_search import random_batch, small_model
from waiting import Waiting

from asr_core.decoding.beam_options import FastBeamOptions
from asr_core.decoding.device import graph_beam, replay
from asr_core.decoding.device.graph_beam import Capacity, fast_beam_search_with_graph, lattices_on_device
from asr_core.decoding.graph.fsa import accept_all
from asr_core.decoding.transducer.fast_beam import fast_beam_search
from asr_core.decoding.transducer.fast_beam_nbest import find_lattices


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def same(found, usual):
    assert len(found) == len(usual)
    for a, b in zip(found, usual):
        assert (a.tokens, a.timestamps, a.words) == (b.tokens, b.timestamps, b.words)
        assert a.log_prob == pytest.approx(b.log_prob, rel=1e-5, abs=1e-4)


def searched(model, x, lens, opts, graph):
    found = fast_beam_search_with_graph(model, x, lens, opts, graph)
    same(found, fast_beam_search(model, x, lens, opts, graph))
    return found


@pytest.mark.parametrize("limits", [(20.0, 8, 64), (4.0, 4, 8), (3.0, 6, 3), (20.0, 1, 1), (9.0, 3, 40)])
@pytest.mark.parametrize("context_size", [1, 2])
def test_lexicons(context_size, limits):
    model = small_model(vocab_size=7, context_size=context_size, scale=2.0)
    tokens = 0
    for seed, (n, t, ilme_scale) in enumerate(((6, 15, 0.0), (12, 40, 0.2))):
        x, lens = random_batch(n=n, t=t, seed=t)
        opts = FastBeamOptions(0.3, 1.2, *limits, ilme_scale=ilme_scale)
        found = searched(model, x, lens, opts, made_up_lg(7, 20, seed))
        tokens += sum(len(h.tokens) for h in found)
        alone = fast_beam_search_with_graph(model, x[:1], lens[:1], opts, made_up_lg(7, 20, seed))
        same(alone, found[:1])
    assert tokens > 40


@pytest.mark.parametrize("limits", [(20.0, 8, 64), (4.0, 4, 8), (3.0, 6, 3)])
@pytest.mark.parametrize("words", [20, 0])
def test_lattices(words, limits):
    model = small_model(vocab_size=7, scale=2.0)
    graph = made_up_lg(7, words) if words else accept_all(7, 0)
    opts = FastBeamOptions(0.3, 1.2, *limits)
    for n, t in ((6, 15), (9, 40)):
        x, lens = random_batch(n=n, t=t, seed=t)
        found = lattices_on_device(model, x, lens, opts, graph)
        usual = find_lattices(model, x, lens, opts, graph)
        assert sum(len(lattice.arc) for lattice in usual) > 2 * int(lens.sum())
        for a, b in zip(found, usual):
            for name in ("begin", "dest", "arc", "frame", "num_frames"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            np.testing.assert_allclose(a.score, b.score, atol=1e-5)
            np.testing.assert_allclose(a.final, b.final, atol=1e-5)


def test_arcs_that_agree_and_dead_ends():
    """Arcs of equal source, label and destination; states that no path leaves, or that are not
    final.
    """
    arcs = [(0, 1, 1, 1, -0.5), (0, 1, 1, 2, -0.5), (0, 2, 2, 0, -0.1), (1, 1, 3, 0, 0.2), (1, 0, 1, 3, -0.3)]
    arcs += [(2, 3, 1, 0, 0.0), (0, 0, 4, 0, -0.2), (0, 1, 4, 4, -0.2)]
    model = small_model(scale=2.0)
    x, lens = random_batch(n=8, t=25, seed=3)
    for final in ({1: -0.3}, {3: 0.0}, {0: 0.0, 1: -1.0}):
        searched(model, x, lens, FastBeamOptions(), fsa_of(arcs, final))
    none = fsa_of([], {0: -0.5})
    assert all(h.tokens == [] for h in searched(model, x, lens, FastBeamOptions(), none))


def test_room_grows(monkeypatch):
    monkeypatch.setattr(Capacity, "__init__", lambda self: self.__dict__.update(arcs=8, moves=2))
    model = small_model(vocab_size=7, scale=2.0)
    x, lens = random_batch(n=9, t=20, seed=2)
    graph, opts = made_up_lg(7, 30), FastBeamOptions()
    searched(model, x, lens, opts, graph)
    capacity = graph_beam._capacities[graph]
    assert capacity.arcs >= 32 and capacity.moves >= 8
    before = capacity.arcs
    searched(model, x, lens, opts, graph)
    assert capacity.arcs == before
    monkeypatch.setattr(graph_beam, "_MOST_ARCS", 16)
    assert fast_beam_search_with_graph(model, x, lens, opts, graph) is None


def test_nothing_to_search():
    model, graph, opts = small_model(), made_up_lg(5, 5), FastBeamOptions()
    for x, lens in (
        (torch.zeros(0, 4, 8), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(2, 0, 8), torch.tensor([0, 0])),
    ):
        searched(model, x, lens, opts, graph)


def test_nothing_in_a_graph_waits_for_the_device():
    model, graph = small_model(), made_up_lg(5, 5)
    x, lens = random_batch()
    fast_beam_search_with_graph(model, x, lens, FastBeamOptions(ilme_scale=0.1), graph)
    lattices_on_device(model, x, lens, FastBeamOptions(), graph)
    assert len(replay._searches) == 2
    for search in replay._searches.values():
        with Waiting() as waiting, torch.inference_mode():
            search.loop._frames()
        assert waiting.calls > 16 * 10
        assert not waiting.found


def test_searches_of_a_graph_share_its_arcs_and_keep_no_lattices():
    model, graph, opts = small_model(), made_up_lg(5, 5), FastBeamOptions()
    for n, t in ((6, 15), (9, 40)):
        lattices_on_device(model, *random_batch(n=n, t=t), opts, graph)
    first, second = replay._searches.values()
    assert first._search._arcs.label is second._search._arcs.label
    assert first.loop.notes == second.loop.notes == []


def test_numbers_that_do_not_fit():
    """Places before and after a frame come to the host as one number of 32 bits."""
    x, lens = random_batch()
    opts = FastBeamOptions(max_states=46341)
    assert lattices_on_device(small_model(), x, lens, opts, made_up_lg(5, 5)) is None

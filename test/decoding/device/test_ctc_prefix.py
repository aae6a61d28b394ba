"""CTC prefix beam search with fixed shapes and without waiting, on CPU tensors: it finds what the
usual one finds.
"""

from types import SimpleNamespace

import pytest
import torch
from toy_ctc import dictionary_search, frames
from waiting import Waiting

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.device import replay
from asr_core.decoding.device.ctc_prefix import ctc_prefix_beam_search_on_device

MODEL = SimpleNamespace(ctc_output=torch.clone)  # frames are log-probabilities already


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def same(found, usual):
    assert len(found) == len(usual)
    for lists in zip(found, usual):
        assert [(h.tokens, h.timestamps) for h in lists[0]] == [(h.tokens, h.timestamps) for h in lists[1]]
        assert [h.log_prob for h in lists[0]] == pytest.approx([h.log_prob for h in lists[1]], abs=1e-6)


@pytest.mark.parametrize("vocab_size, peak", [(3, 1.5), (7, 1.5), (40, 3.0)])
@pytest.mark.parametrize("beam", [1, 2, 4, 9])
def test_equals_the_usual_search(beam, vocab_size, peak):
    x, lens = frames(7, 40, vocab_size, seed=beam, peak=peak), torch.tensor([40, 13, 0, 40, 1, 29, 7])
    tokens = 0
    for opts in (BeamOptions(beam_size=beam), BeamOptions(2.0, 1.5, beam_size=beam, num_best=2)):
        found = ctc_prefix_beam_search_on_device(MODEL, x, lens, opts)
        same(found, ctc_prefix_beam_search(MODEL, x, lens, opts))
        tokens += sum(len(hyps[0].tokens) for hyps in found)
        for i in (1, 5):
            alone = ctc_prefix_beam_search_on_device(MODEL, x[i : i + 1], lens[i : i + 1], opts)
            assert alone[0] == found[i]
    assert tokens > 50


def test_equals_the_dictionaries():
    x = frames(3, 30, 6, seed=3)
    found = ctc_prefix_beam_search_on_device(MODEL, x, torch.tensor([30] * 3), BeamOptions(beam_size=5))
    for i in range(3):
        want = dictionary_search(x[i], 5)
        assert [tuple(h.tokens) for h in found[i]] == [tokens for tokens, _ in want]
        assert [h.log_prob for h in found[i]] == pytest.approx([score for _, score in want], abs=1e-4)


def test_tokens_that_cannot_be():
    x = frames(4, 25, 6, seed=1)
    x[:, ::3, 2:] = float("-inf")
    x[1] = float("-inf")
    lens = torch.tensor([25, 25, 3, 0])
    opts = BeamOptions(beam_size=6)
    same(ctc_prefix_beam_search_on_device(MODEL, x, lens, opts), ctc_prefix_beam_search(MODEL, x, lens, opts))
    x[1, 4] = float("nan")
    assert [h[:2] for h in ctc_prefix_beam_search_on_device(MODEL, x, lens, opts)[1]] == [([], [])]


def test_nothing_to_search():
    assert (
        ctc_prefix_beam_search_on_device(MODEL, torch.zeros(0, 4, 8), torch.zeros(0, dtype=torch.int64)) == []
    )
    for num_frames in (0, 3):
        lists = ctc_prefix_beam_search_on_device(MODEL, torch.zeros(2, num_frames, 8), torch.tensor([0, 0]))
        assert [[h[:3] for h in hyps] for hyps in lists] == [[([], [], 0.0)]] * 2


def test_nothing_in_a_graph_waits_for_the_device():
    x, lens = frames(7, 20, 6), torch.tensor([20, 13, 0, 4, 1, 9, 7])
    ctc_prefix_beam_search_on_device(MODEL, x, lens)
    (search,) = replay._searches.values()
    with Waiting() as waiting, torch.inference_mode():
        search._frames()
    assert 16 * 10 < waiting.calls < 16 * 200
    assert not waiting.found

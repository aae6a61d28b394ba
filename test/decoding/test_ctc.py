"""CTC searches against enumeration of all alignments and against a search written with
dictionaries.
"""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from answers import one_best
from recognition import recognize
from tiny import OPTIONS, PIECES, utterances
from toy_ctc import MODEL, add, collapse, dictionary_search, frames

from asr_core.decoding.beam_options import BeamOptions, LogitOptions
from asr_core.decoding.ctc.greedy import StreamingCtcGreedySearch, ctc_greedy_search
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.utils.options import from_params


def enumerate_all(log_probs):
    """Log-probability of every token sequence, best first."""
    total = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        tokens = collapse(path)
        total[tokens] = add(total[tokens], sum(float(log_probs[t, v]) for t, v in enumerate(path)))
    return sorted(total.items(), key=lambda item: -item[1])


def assert_same(found, expected):
    assert [h.tokens for h in found] == [list(tokens) for tokens, _ in expected]
    assert [h.log_prob for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exact(seed):
    x, lens = frames(3, 5, 3, seed=seed), torch.tensor([5, 2, 0])
    found = ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=70))
    for i, n in enumerate(lens.tolist()):
        assert_same(found[i], [item for item in enumerate_all(x[i, :n]) if item[1] > -math.inf])
    assert [h[:3] for h in found[2]] == [([], [], 0.0)]


@pytest.mark.parametrize("beam", [1, 2, 4, 9])
def test_a_narrow_beam_equals_the_dictionaries(beam):
    x, lens = frames(6, 40, 7, seed=beam), torch.tensor([40, 13, 40, 1, 29, 7])
    opts = BeamOptions(beam_size=beam)
    found = ctc_prefix_beam_search(MODEL, x, lens, opts)
    best, three = (
        ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=beam, num_best=n)) for n in (1, 3)
    )
    for i, n in enumerate(lens.tolist()):
        assert_same(found[i], dictionary_search(x[i, :n], beam))
        assert best[i] == found[i][:1]
        assert [h.tokens for h in three[i]] == [h.tokens for h in found[i][:3]]
        ((alone, *_),) = ctc_prefix_beam_search(MODEL, x[i : i + 1, :n], lens[i : i + 1], opts)
        assert alone[:2] == found[i][0][:2]


def test_timestamps():
    path = [0, 3, 3, 0, 3, 2, 2, 0]
    x = torch.full((1, 8, 4), 0.01).scatter_(2, torch.tensor(path).view(1, 8, 1), 0.97).log()
    lens = torch.tensor([8])
    for (hypothesis,) in (
        ctc_greedy_search(MODEL, x, lens),
        one_best(ctc_prefix_beam_search(MODEL, x, lens)),
    ):
        assert hypothesis.tokens == [3, 3, 2] and hypothesis.timestamps == [1, 4, 5]
    assert hypothesis.log_prob > 8 * math.log(0.97)
    with pytest.raises(ValueError, match="at least 1"):
        BeamOptions(beam_size=0)


def test_greedy():
    x, lens = frames(5, 30, 6), torch.tensor([30, 12, 0, 1, 25])
    found = ctc_greedy_search(MODEL, x, lens)
    for i, n in enumerate(lens.tolist()):
        path = x[i, :n].argmax(-1).tolist()
        assert tuple(found[i].tokens) == collapse(path)
        assert [path[t] for t in found[i].timestamps] == found[i].tokens
        assert all(t == 0 or path[t - 1] != path[t] for t in found[i].timestamps)
        assert found[i].log_prob == pytest.approx(float(x[i, :n].amax(-1).sum()), abs=1e-4)


def test_streaming_greedy_equals_whole_utterances():
    x, lens = frames(3, 24, 4, peak=1.0), torch.tensor([24, 24, 24])
    search = StreamingCtcGreedySearch(MODEL)
    streams = [search.new_stream() for _ in range(3)]
    begin = 0
    for size in (1, 7, 4, 12):
        search.advance(streams, x[:, begin : begin + size], torch.full((3,), size))
        search.advance(streams[:1], x[:1, :3], torch.tensor([0]))  # nothing new
        begin += size
    for stream, whole in zip(streams, ctc_greedy_search(MODEL, x, lens)):
        assert stream.hypothesis()[:2] == whole[:2]
        assert stream.log_prob == pytest.approx(whole.log_prob, abs=1e-4)


def test_penalty_and_temperature():
    x, lens = frames(4, 30, 5), torch.full((4,), 30)

    def greedy(penalty):
        return ctc_greedy_search(MODEL, x.clone(), lens, LogitOptions(blank_penalty=penalty))

    def prefix(penalty):
        return one_best(ctc_prefix_beam_search(MODEL, x.clone(), lens, BeamOptions(blank_penalty=penalty)))

    for search in (greedy, prefix):
        count = [sum(len(h.tokens) for h in search(p)) for p in (-20.0, 0.0, 20.0)]
        assert count[0] == 0 < count[1] < count[2]
    plain, warm = (ctc_greedy_search(MODEL, x, lens, LogitOptions(temperature=t))[0] for t in (1.0, 2.0))
    assert plain.tokens == warm.tokens
    assert warm.log_prob == pytest.approx(float((x[0] / 2).log_softmax(-1).amax(-1).sum()), abs=1e-4)


def test_a_model_without_transducer_streams_as_it_decodes_whole_utterances():
    torch.manual_seed(0)
    model = build_model(
        from_params(ModelOptions, {**OPTIONS, "causal": True, "use_transducer": False, "use_ctc": True}),
        len(PIECES),
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.add_(torch.randn_like(p) * 0.5 / p[0].numel() ** 0.5)
    model.set_chunk(16, 32)
    features, opts = utterances(7), SearchOptions(decoding_method="ctc-greedy-search")
    whole = recognize(model, *collate(features), opts, True, 16)
    real = dict(decode_streams(StreamBatch(model, streaming_search(model, opts), 16), enumerate(features), 3))
    for i, hypothesis in enumerate(whole):
        assert real[i][:2] == hypothesis[:2]
    assert len({t for h in whole for t in h.tokens}) >= 4
    prefix = recognize(
        model,
        *collate(features),
        SearchOptions(decoding_method="ctc-prefix-beam-search", beam_size=3),
        True,
        16,
    )
    assert all(b.log_prob >= a.log_prob - 1e-3 for a, b in zip(whole, prefix))

import math
from types import SimpleNamespace

import pytest
import torch
from recognition import recognize
from tiny import tiny_model, utterances

from asr_core.data.features import LOG_EPS
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.padding import num_chunks, pad_for_encoder, searched_frames, streaming_windows
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.segmentation import split_points
from asr_core.decoding.streaming import StreamBatch, decode_streams, state_batch_dims

METHODS = ("greedy_search", "modified_beam_search")


@pytest.mark.parametrize("chunk, left", [(8, 32), (16, 32), (32, 64)])
@pytest.mark.parametrize("method", METHODS)
def test_real_streaming_equals_simulated(method, chunk, left):
    model = tiny_model(causal=True)
    model.set_chunk(chunk, left)
    features = utterances(17)
    opts = SearchOptions(decoding_method=method)
    simulated = recognize(model, *collate(features), opts, True, chunk)
    batch = StreamBatch(model, streaming_search(model, opts), chunk)
    for num_streams in (5, 100):
        real = dict(decode_streams(batch, enumerate(features), num_streams))
        assert not batch.streams and sorted(real) == list(range(len(features)))
        for i, hyp in enumerate(simulated):
            assert real[i][:2] == hyp[:2]
            assert real[i].log_prob == pytest.approx(hyp.log_prob, rel=1e-3)
    tokens = [t for h in simulated for t in h.tokens]
    assert len(tokens) > 50 and len(set(tokens)) >= 4  # or the comparison says little


@pytest.mark.parametrize("causal, chunk", [(True, 16), (True, -1), (False, -1)])
def test_recognition_does_not_depend_on_the_batch(causal, chunk):
    model = tiny_model(causal)
    if causal:
        model.set_chunk(chunk, 32 if chunk > 0 else -1)
    features = utterances(9)
    together = recognize(model, *collate(features), SearchOptions(), causal, chunk)
    for f, hyp in zip(features, together):
        (alone,) = recognize(model, *collate([f]), SearchOptions(), causal, chunk)
        assert alone.tokens == hyp.tokens and alone.timestamps == hyp.timestamps


@torch.inference_mode()
def test_encoder_output_of_chunks_equals_masked_forward():
    model = tiny_model(causal=True)
    model.set_chunk(16, 48)
    features = utterances(4)
    x, lens_of_features = collate(features)
    x, lens = pad_for_encoder(x, lens_of_features, True, 16)
    whole, whole_lens = model.forward_encoder(x, lens)
    for i, f in enumerate(features):
        states = model.get_init_states(1)
        outs = []
        for window in streaming_windows(f, 16):
            out, out_lens, states = model.streaming_forward(window[None], torch.tensor([len(window)]), states)
            assert out_lens.tolist() == [8]
            outs.append(out[0])
        out = torch.cat(outs)
        assert int(searched_frames(lens_of_features[i], model.geometry)) <= len(out) <= int(whole_lens[i])
        torch.testing.assert_close(out, whole[i, : len(out)], rtol=1e-4, atol=1e-4)


def test_padding():
    x = torch.ones(2, 50, 3)
    lens = torch.tensor([50, 20])
    plain, plain_lens = pad_for_encoder(x, lens, causal=False)
    assert plain.shape == x.shape and plain_lens.tolist() == [50, 20]
    assert (plain[1, 20:] == LOG_EPS).all() and (plain[1, :20] == 1).all() and (plain[0] == 1).all()
    tail, tail_lens = pad_for_encoder(x, lens, causal=True)
    assert tail.shape == (2, 80, 3) and tail_lens.tolist() == [80, 50]
    assert (tail[0, 50:] == LOG_EPS).all()
    chunks, chunk_lens = pad_for_encoder(x, lens, causal=True, chunk_size=16)
    assert num_chunks(lens, 16).tolist() == [3, 2]
    assert chunk_lens.tolist() == [3 * 32 + 13, 2 * 32 + 13] and chunks.shape == (2, 3 * 32 + 13, 3)
    short, short_lens = pad_for_encoder(x[:, :2], torch.tensor([2, 1]), causal=False)
    assert short.shape == (2, 9, 3) and short_lens.tolist() == [9, 9]


def test_windows_overlap():
    f = torch.arange(40.0).unsqueeze(1)
    windows = streaming_windows(f, 8)
    assert windows.shape == (math.ceil((40 + 23) / 16), 29, 1)
    assert windows[1, :13].equal(windows[0, 16:]) and windows[0, :, 0].tolist() == list(range(29))
    assert (windows[-1, -13:] == LOG_EPS).all()


def test_batch_dimensions_of_states():
    model = tiny_model(causal=True)
    model.set_chunk(16, 32)
    scripted = SimpleNamespace(get_init_states=model.get_init_states)  # does not say which they are
    assert state_batch_dims(model) == state_batch_dims(scripted) == model.state_batch_dims()


def test_split_points():
    torch.manual_seed(0)
    f = torch.randn(1000, 8)
    f[280:310] -= 5
    f[520:560] -= 5
    pieces = split_points(f, 300)
    assert pieces[0][0] == 0 and pieces[-1][1] == 1000
    assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:])) and max(b - a for a, b in pieces) <= 300
    assert 280 <= pieces[0][1] <= 300 and 520 <= pieces[1][1] <= 560
    assert split_points(f, 1000) == [(0, 1000)]
    assert split_points(f[:0], 10) == [(0, 0)]

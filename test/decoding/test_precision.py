"""Decoding in half precision."""

import copy

import pytest
import tiny_encoders
import torch
from tiny import tiny_model, utterances

from asr_core.decoding.encoding import collate
from asr_core.decoding.method import BEST
from asr_core.decoding.offline import encode, search
from asr_core.decoding.options import DTYPES, SearchOptions
from asr_core.decoding.precision import input_dtype, set_precision
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.utils.errors import UserError

CPU = torch.device("cpu")
HALF = DTYPES[1:]


def converted(model, dtype):
    model = copy.deepcopy(model)
    set_precision(model, dtype, CPU)
    return model


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", tiny_encoders.TINY)
def test_every_encoder_decodes(name, dtype):
    model = tiny_encoders.model_of(name).eval()
    half = converted(model, dtype)
    features = [u[:120] for u in tiny_encoders.utterances()]
    job, other = (encode(m, *collate(features), SearchOptions()) for m in (model, half))
    assert input_dtype(half) == other.encoder_out.dtype == getattr(torch, dtype)
    assert torch.equal(job.lens, other.lens)
    scale = job.encoder_out.abs().max()
    assert (job.encoder_out - other.encoder_out.float()).abs().max() < 0.15 * scale
    assert all(torch.isfinite(torch.tensor(found[0].log_prob)) for found in search(other)[BEST])


@pytest.mark.parametrize(
    "method",
    ["greedy_search", "modified_beam_search", "fast_beam_search", "beam_search", "alsd", "fast_beam_search_nbest",
     "ctc-greedy-search", "ctc-prefix-beam-search", "ctc-decoding"],
)  # fmt: skip
def test_methods_add_up_in_single_precision(method):
    model = tiny_model(False, use_ctc=True)
    half = converted(model, "bfloat16")
    assert next(half.ctc_output.parameters()).dtype == torch.float32
    x, lens = collate(utterances(3))
    opts = SearchOptions(decoding_method=method, ilme_scale=0.1, num_paths=10)
    found, expected = (search(encode(m, x, lens, opts))[BEST] for m in (half, model))
    for (a, *_), (b, *_) in zip(found, expected):
        assert a.log_prob == pytest.approx(b.log_prob, rel=0.25, abs=3)
        # a multiple of 1/4 would be the sum of numbers of 8 bits
        assert a.log_prob * 4 != round(a.log_prob * 4)
    assert sum(len(a.tokens) for a, *_ in found) > 10


@pytest.mark.parametrize("dtype", HALF)
def test_streams(dtype):
    model = tiny_model(True)
    model.set_chunk(16, 32)
    model = converted(model, dtype)
    batch = StreamBatch(model, streaming_search(model, SearchOptions()), 16)
    features = list(enumerate(utterances(3)))
    found = dict(decode_streams(batch, features, 2))
    assert {state.dtype for state in batch._states} <= {getattr(torch, dtype), torch.int32, torch.int64}
    assert len(found) == 3 and sum(len(h.tokens) for h in found.values()) > 5


def test_an_lstm_predictor_stays_in_single_precision():
    model = converted(tiny_model(False, predictor="lstm"), "bfloat16")
    assert {p.dtype for p in model.decoder.parameters()} == {torch.float32}
    found = search(encode(model, *collate(utterances(3)), SearchOptions()))[BEST]
    assert len(found) == 3


def test_other_files_fix_their_precision():
    set_precision(object(), "float32", CPU)
    with pytest.raises(UserError, match="--dtype bfloat16: a TorchScript file computes as it was exported"):
        set_precision(object(), "bfloat16", CPU)

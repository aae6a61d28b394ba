"""Searches with an LSTM predictor: batched, chunk by chunk and in TorchScript as alone, at once and
in Python.
"""

import pytest
import torch
from tiny import OPTIONS, PIECES, utterances
from toy_search import all_paths, first, random_batch, small_model

from asr_core.decoding.beam_options import FastBeamOptions
from asr_core.decoding.transducer.fast_beam import FastBeamCore, StreamingFastBeamSearch, fast_beam_search
from asr_core.decoding.transducer.graves_beam import graves_beam_search
from asr_core.decoding.transducer.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.transducer.hashed_contexts import HashedContexts
from asr_core.decoding.transducer.modified_beam import StreamingBeamSearch, modified_beam_search
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.decoding.transducer.predictor import predictor_states
from asr_core.export.torchscript import load_torchscript, save_torchscript, script_model
from asr_core.models.build import build_model
from asr_core.models.checkpoint import model_from_checkpoint
from asr_core.models.options import ModelOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of

LSTM = dict(
    predictor="lstm",
    predictor_layers=2,
    predictor_hidden_dim=24,
    predictor_embedding_dim=12,
    predictor_layer_norm=True,
)
modified, graves = first(modified_beam_search), first(graves_beam_search)
SEARCHES = [greedy_search, modified, graves, fast_beam_search]


def recurrent_model(**options):
    """A small Zipformer with an LSTM predictor, its weights lively."""
    torch.manual_seed(0)
    model = build_model(from_params(ModelOptions, {**OPTIONS, **LSTM, **options}), vocab_size=len(PIECES))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.add_(torch.randn_like(p) * 0.5 / p[0].numel() ** 0.5)
        model.joiner.output_linear.bias[0] = 1.5
    return model.eval()


def same(found, want):
    assert [h[:2] for h in found] == [h[:2] for h in want]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in want], rel=1e-4, abs=1e-4)
    assert sum(len(h.tokens) for h in want) > 1


@pytest.mark.parametrize("search", SEARCHES)
def test_batch_equals_one_at_a_time(search):
    model = small_model(vocab_size=4, context_size=None, scale=1.5)
    model.joiner.output_linear.bias.data[0] += (
        3.0  # for Graves' search, which has no limit of tokens per frame
    )
    x, lens = random_batch(n=6, t=12)
    same(search(model, x, lens), [search(model, x[i : i + 1], lens[i : i + 1])[0] for i in range(6)])


STREAMING = [
    (StreamingGreedySearch, greedy_search),
    (StreamingBeamSearch, modified),
    (StreamingFastBeamSearch, fast_beam_search),
]


@pytest.mark.parametrize("make, search", STREAMING)
def test_chunk_by_chunk_equals_at_once(make, search):
    model = small_model(context_size=None)
    x, lens = random_batch(n=6, t=25)
    streaming = make(model)
    streams = [streaming.new_stream() for _ in lens]
    for turn, start in enumerate(range(0, 25, 5)):  # in another order each time
        order = list(range(turn % 6, 6)) + list(range(turn % 6))
        streaming.advance(
            [streams[i] for i in order], x[order, start : start + 5], (lens[order] - start).clamp(0, 5)
        )
    same([s.hypothesis() for s in streams], search(model, x, lens))


def test_states_move_only_where_a_token_is_emitted():
    model = small_model(context_size=None)
    table = predictor_states(model)
    before = table.start(2, 3)
    token = torch.tensor([[1, 2, 3], [4, 1, 0]])
    emits = torch.tensor([[True, False, True], [True, True, False]])
    after = table.append(before, token, emits)
    for i in range(2):
        for j in range(3):
            tokens = [0, int(token[i, j])] if emits[i, j] else [0]
            want = model.joiner.decoder_proj(model.decoder(torch.tensor([tokens]))[0, -1])
            torch.testing.assert_close(table.output(after)[i, j], want)
    assert table.append(before, token, torch.zeros_like(emits)) is before


def test_fast_beam_search_with_room_finds_the_best_path():
    model = small_model(vocab_size=4, context_size=None, scale=1.5)
    x, lens = random_batch(n=4, t=5)
    wide = FastBeamOptions(beam=1e9, max_contexts=5000, max_states=5000)
    found = fast_beam_search(model, x, lens, wide)
    for i, hyp in enumerate(found):
        labels, log_prob = max(all_paths(model, x[i, : lens[i]], 4), key=lambda path: path[1])
        assert hyp.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert hyp.tokens == [label for label in labels if label]
    assert sum(len(h.tokens) for h in found) > 2


@torch.inference_mode()
def test_contexts_too_many_to_number_are_hashed():
    model = small_model(vocab_size=6, context_size=3)
    x, lens = random_batch(n=5, t=9, seed=3)
    want = fast_beam_search(model, x, lens)
    table = HashedContexts(model)
    search = FastBeamCore(model, FastBeamOptions())
    search._contexts, search._limits = table, search._limits._replace(base=table.base, keep=table.keep)
    packed = pack_frames(x, lens)
    frontier, _ = search.run(packed.frames, search.start(len(x)))
    best = search.final_scores(frontier).max(dim=1).values[packed.order.argsort()]
    assert best.tolist() == pytest.approx([h.log_prob for h in want], abs=1e-4)


@pytest.mark.parametrize("clip", [0.0, 0.7])
def test_checkpoint_and_torchscript_search_alike(tmp_path, clip):
    model = recurrent_model(predictor_cell_clip=clip)
    options = from_params(ModelOptions, {**OPTIONS, **LSTM, "predictor_cell_clip": clip})
    record = {**record_of(options), "vocab_size": len(PIECES), "feature_dim": 80}
    again = model_from_checkpoint({"model": model.state_dict(), **record}).eval()
    save_torchscript(script_model(again, streaming=False), tmp_path / "m.pt", {}, PIECES)
    scripted = load_torchscript(tmp_path / "m.pt")
    assert scripted.use_transducer and scripted.vocab_size == len(PIECES)
    x = torch.nn.utils.rnn.pad_sequence(utterances(3), batch_first=True)
    with torch.no_grad():
        encoder_out, lens = model.forward_encoder(x, torch.tensor([len(u) for u in utterances(3)]))
    for search in SEARCHES:
        want = search(model, encoder_out, lens)
        same(search(again, encoder_out, lens), want)
        same(search(scripted, encoder_out, lens), want)
    with pytest.raises(UserError, match="--predictor stateless contradicts"):
        model_from_checkpoint({"model": model.state_dict(), **record}, {"predictor": "stateless"})

import itertools
import math
from collections import defaultdict

import pytest
import torch
from answers import one_best
from golden_search import batches, expected, golden_model, load_golden
from toy_search import initial_length, log_probs, random_batch, small_model

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions, GreedyOptions
from asr_core.decoding.transducer.context_table import ContextTable
from asr_core.decoding.transducer.fast_beam import StreamingFastBeamSearch, fast_beam_search
from asr_core.decoding.transducer.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.transducer.modified_beam import StreamingBeamSearch, modified_beam_search
from asr_core.decoding.transducer.packed_frames import pack_frames


def greedy(model, x, lens, **options):
    return greedy_search(model, x, lens, GreedyOptions(**options))


def modified(model, x, lens, **options):
    return one_best(modified_beam_search(model, x, lens, BeamOptions(**options)))


def fast_beam(**limits):
    def search(model, x, lens, **options):
        return fast_beam_search(model, x, lens, FastBeamOptions(**limits, **options))

    return search


SEARCHES = {
    "greedy_search_batch": greedy,
    "modified_beam_search_4": modified,
    "fast_beam_search_b20_c8_s64": fast_beam(beam=20.0, max_contexts=8, max_states=64),
    "fast_beam_search_b4_c4_s8": fast_beam(beam=4.0, max_contexts=4, max_states=8),
}
STREAMING = [
    (StreamingGreedySearch, greedy),
    (StreamingBeamSearch, modified),
    (StreamingFastBeamSearch, fast_beam()),
]


@pytest.fixture(scope="module")
def golden():
    data = load_golden()
    return data, golden_model(data)


@pytest.mark.parametrize("batch", [60, 7])
@pytest.mark.parametrize("name", SEARCHES)
def test_same_tokens_as_the_reference(golden, name, batch):
    data, model = golden
    found = [h.tokens for x, lens in batches(data, batch) for h in SEARCHES[name](model, x, lens)]
    assert found == expected(data, name)


@pytest.mark.parametrize("max_sym", [1, 2, 3])
@pytest.mark.parametrize("context_size", [1, 2, 3, None])
@torch.no_grad()
def test_greedy_against_a_plain_loop(max_sym, context_size):
    model = small_model(context_size=context_size)
    x, lens = random_batch(t=30)
    many = 0
    for i, hyp in enumerate(greedy(model, x, lens, max_sym_per_frame=max_sym)):
        tokens, times, score = [], [], 0.0
        for t in range(int(lens[i])):
            for _ in range(max_sym):
                best, token = log_probs(model, x[i, t], tokens).max(0)
                score += float(best)
                if token == 0:
                    break
                tokens.append(int(token))
                times.append(t)
        assert hyp.tokens == tokens and hyp.timestamps == times
        assert hyp.log_prob == pytest.approx(score, rel=1e-4, abs=1e-4)
        many += len(times) - len(set(times))
    assert (many > 0) == (max_sym > 1)


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_wide_beam_is_exhaustive(seed, context_size):
    model = small_model(vocab_size=3, seed=seed, context_size=context_size)
    x, _ = random_batch(n=3, t=4, seed=seed)
    lens = torch.tensor([4, 0, 3])
    hyps = modified(model, x, lens, beam_size=40)
    for i, hyp in enumerate(hyps):
        total = defaultdict(lambda: -math.inf)
        for path in itertools.product(range(3), repeat=int(lens[i])):
            tokens, score = [], 0.0
            for t, token in enumerate(path):
                score += float(log_probs(model, x[i, t], tokens)[token])
                tokens += [token] * (token != 0)
            key = tuple(tokens)
            total[key] = float(torch.logaddexp(torch.tensor(total[key]), torch.tensor(score)))
        best = max(total, key=lambda k: total[k] / (len(k) + initial_length(model)))
        assert tuple(hyp.tokens) == best
        assert hyp.log_prob == pytest.approx(total[best], abs=1e-4)


@torch.no_grad()
def plain_beam_search(model, x, beam):
    """Modified beam search of one utterance with dictionaries."""
    hyps = {(): (0.0, ())}
    for t, frame in enumerate(x):
        candidates = []
        for tokens, (score, times) in hyps.items():
            for token, lp in enumerate(log_probs(model, frame, list(tokens)).tolist()):
                new = (tokens, times) if token == 0 else (tokens + (token,), times + (t,))
                candidates.append((score + lp, *new))
        hyps = {}
        for score, tokens, times in sorted(candidates, reverse=True)[:beam]:
            if tokens in hyps:
                old, times = hyps[tokens]
                score = max(old, score) + math.log1p(math.exp(-abs(old - score)))
            hyps[tokens] = (score, times)
    best = max(hyps, key=lambda k: hyps[k][0] / (len(k) + initial_length(model)))
    return list(best), list(hyps[best][1]), hyps[best][0]


@pytest.mark.parametrize("beam", [1, 2, 4, 7])
@pytest.mark.parametrize("scale, context_size", [(1.0, 2), (3.0, 2), (1.0, None), (3.0, None)])
def test_beam_against_plain_dictionaries(beam, scale, context_size):
    model = small_model(scale=scale, context_size=context_size)
    x, lens = random_batch(n=12, t=20)
    for i, hyp in enumerate(modified(model, x, lens, beam_size=beam)):
        tokens, times, score = plain_beam_search(model, x[i, : int(lens[i])], beam)
        assert (hyp.tokens, hyp.timestamps) == (tokens, times)
        assert hyp.log_prob == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("name", SEARCHES)
def test_batch_equals_one_at_a_time(golden, name):
    data, model = golden
    search = SEARCHES[name]
    x, lens = next(iter(batches(data, 12)))
    lens = lens.clone()
    lens[3] = 0
    together = search(model, x, lens)
    for i, hyp in enumerate(together):
        (alone,) = search(model, x[i : i + 1], lens[i : i + 1])
        assert alone[:2] == hyp[:2]
        assert alone.log_prob == pytest.approx(hyp.log_prob, rel=1e-4)
    assert together[3][:3] == ([], [], 0.0)


@pytest.mark.parametrize("make, search", STREAMING)
def test_chunk_by_chunk_equals_at_once(golden, make, search):
    data, model = golden
    x, lens = next(iter(batches(data, 20)))
    whole = search(model, x, lens)
    streaming = make(model)
    streams = [streaming.new_stream() for _ in lens]
    position = torch.zeros_like(lens)
    torch.manual_seed(0)
    while (position < lens).any():
        chosen = [i for i in range(len(lens)) if position[i] < lens[i] and torch.rand(()) < 0.7]
        sizes = [min(int(torch.randint(1, 9, ())), int(lens[i] - position[i])) for i in chosen]
        if not chosen:
            continue
        chunk = x.new_full((len(chosen), max(sizes), x.size(2)), 1e3)  # padding must not matter
        for row, (i, size) in enumerate(zip(chosen, sizes)):
            chunk[row, :size] = x[i, position[i] : position[i] + size]
            position[i] += size
        streaming.advance([streams[i] for i in chosen], chunk, torch.tensor(sizes))
    for stream, hyp in zip(streams, whole):
        found = stream.hypothesis()
        assert found[:2] == hyp[:2]
        assert found.log_prob == pytest.approx(hyp.log_prob, rel=1e-4)


@pytest.mark.parametrize("name", SEARCHES)
def test_blank_penalty_and_temperature(golden, name):
    data, model = golden
    x, lens = next(iter(batches(data, 12)))
    count = {
        p: sum(len(h.tokens) for h in SEARCHES[name](model, x, lens, blank_penalty=p))
        for p in (-5.0, 0.0, 5.0)
    }
    assert count[-5.0] < count[0.0] < count[5.0]
    cold, warm = (SEARCHES[name](model, x, lens, temperature=t) for t in (1.0, 2.0))
    assert all(w.log_prob < c.log_prob for w, c in zip(warm, cold))
    with pytest.raises(ValueError):
        SEARCHES[name](model, x, lens, temperature=0.0)


@torch.no_grad()
def test_context_table_equals_the_predictor():
    for context_size, vocab_size in (
        (1, 5),
        (2, 5),
        (3, 5),
        (3, 200),
    ):  # the last has too many contexts to index
        model = small_model(vocab_size, context_size=context_size)
        table = ContextTable(model)
        code = table.start(4)
        history = [[-1] * (context_size - 1) + [0] for _ in range(4)]
        for step in range(5):
            want = model.joiner.decoder_proj(
                model.decoder(torch.tensor([h[-context_size:] for h in history]), need_pad=False)[:, 0]
            )
            torch.testing.assert_close(table(code), want)
            token = torch.tensor([1, 2, 1, 4]) + (step % 2) * torch.tensor([0, 2, 3, -3])
            code = table.append(code, token)
            for h, t in zip(history, token.tolist()):
                h.append(t)


def test_pack_frames():
    x = torch.arange(12.0).view(3, 4, 1)
    packed = pack_frames(x, torch.tensor([2, 4, 0]))
    assert packed.order.tolist() == [1, 0, 2]
    assert [f.squeeze(1).tolist() for f in packed.frames] == [[4, 0], [5, 1], [6], [7]]

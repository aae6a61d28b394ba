"""Long utterances in windows: what is found in the pieces is put together, and memory is bounded."""

from types import SimpleNamespace

import pytest
import torch
from recognition import recognize
from tiny import PIECES, tiny_model

from asr_core.decoding.encoding import collate
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST, Transcripts
from asr_core.decoding.offline import OfflineDecoder
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.options import RecordOptions
from asr_core.decoding.segmentation import Piece, batches_of, pieces_of
from asr_core.decoding.windows import Windows
from asr_core.encoders.chunk_options import Chunk
from asr_core.utils.errors import UserError


def words_of(tokens):
    return [PIECES[token].strip("\u2581") for token in tokens]


def windows(seconds=1.0, batch=2.5):
    return Windows(max_segment=seconds, max_duration=batch, words=words_of)


def batch_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 80, generator=generator) * 3 - 8 for n in lengths]
    cuts = [
        SimpleNamespace(id=f"c{i}", duration=n / 100, supervisions=[], recording=None)
        for i, n in enumerate(lengths)
    ]
    supervisions = {
        "sequence_idx": torch.arange(len(rows)),
        "start_frame": torch.zeros(len(rows), dtype=torch.int64),
        "num_frames": torch.tensor(lengths),
        "cut": cuts,
    }
    return rows, {
        "inputs": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "supervisions": supervisions,
    }


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search", "fast_beam_search"])
def test_a_long_utterance_is_its_pieces_one_after_the_other(method, causal):
    model, opts = tiny_model(causal), SearchOptions(decoding_method=method)
    rows, batch = batch_of([437, 80, 250])
    decoder = OfflineDecoder(
        model, opts, chunk=Chunk(-1, -1) if causal else None, windows=windows(batch=0.01)
    )
    found = list(decoder.decode([batch]))
    assert [d.in_windows for d in found] == [True, False, True]
    for row, d in zip(rows, found):
        tokens, times, log_prob = [], [], 0.0
        pieces = pieces_of([row], 1.0, 4)
        for _, first, end in pieces:
            (h,) = recognize(model, *collate([row[first:end]]), opts, causal)
            tokens += h.tokens
            latest = (end - first) // 4 - 1 if end < len(row) else 10**9
            times += [first // 4 + min(t, latest) for t in h.timestamps]
            log_prob += h.log_prob
        h = d.hypotheses[BEST]
        assert h.tokens == tokens and h.timestamps == times == sorted(times) and len(tokens) > 3
        assert h.log_prob == pytest.approx(log_prob, abs=1e-3)
        assert h.words == (words_of(tokens) if d.in_windows else None)
        assert all(first % 4 == 0 for _, first, _ in pieces)


def test_the_encoder_never_sees_more_than_a_batch_of_pieces():
    model, seen = tiny_model(False), []
    forward = model.forward_encoder
    model.forward_encoder = lambda x, x_lens: seen.append(tuple(x.shape[:2])) or forward(x, x_lens)
    _, batch = batch_of([3000, 50, 170])
    list(OfflineDecoder(model, SearchOptions(), windows=windows()).decode([batch]))
    assert max(frames for _, frames in seen) <= 100 and max(n * frames for n, frames in seen) <= 250
    assert sum(n * frames for n, frames in seen) >= 3220


def test_without_long_utterances_nothing_changes():
    model = tiny_model(False)
    _, batch = batch_of([98, 60, 100])
    divided, whole = (
        [d.hypotheses for d in OfflineDecoder(model, SearchOptions(), windows=w).decode([batch])]
        for w in (windows(), None)
    )
    assert divided == whole and all(h[BEST].words is None for h in divided)


def test_confidences_and_n_best_lists():
    records = RecordOptions(write_confidence=True, write_nbest=3)
    opts = SearchOptions(decoding_method="modified_beam_search")
    _, batch = batch_of([437, 80])
    decoder = OfflineDecoder(tiny_model(False), opts, windows=windows(), records=records)
    for d in decoder.decode([batch]):
        assert 1 < len(d.nbest) <= 3 and d.nbest[0] == d.hypotheses[BEST]
        assert len({tuple(h.tokens) for h in d.nbest}) == len(d.nbest)
        assert [h.log_prob for h in d.nbest[1:]] == sorted((h.log_prob for h in d.nbest[1:]), reverse=True)
        for h in d.nbest:
            assert len(h.confidences) == len(h.tokens) == len(h.timestamps)
            assert all(0 <= c <= 1 for c in h.confidences)


def test_join_of_known_hypotheses():
    pieces = [Piece(0, 0, 40), Piece(0, 40, 60), Piece(1, 0, 8)]
    found = [
        {BEST: [[Hypothesis([3], [12], -1.0), Hypothesis([4], [1], -1.5)]]},  # frame 12 is beyond the piece
        {BEST: [[Hypothesis([5, 6], [0, 4], -2.0), Hypothesis([6], [2], -2.25)]]},
        {BEST: [[Hypothesis([7], [3], -1.0)]]},
    ]
    joined = windows().join(pieces, found, factor=4, num_best=3)[BEST]
    assert joined[0] == [
        Hypothesis([3, 5, 6], [9, 10, 14], -3.0, ["W0", "W2", "W3"]),
        Hypothesis([3, 6], [9, 12], -3.25, ["W0", "W3"]),
        Hypothesis([4, 5, 6], [1, 10, 14], -3.5, ["W1", "W2", "W3"]),
    ]
    assert joined[1] == [Hypothesis([7], [3], -1.0)]
    assert [len(h) for h in windows().join(pieces, found, factor=4, num_best=0)[BEST]] == [1, 1]


def test_a_word_does_not_go_on_in_the_next_piece():
    pieces = [Piece(0, 0, 40), Piece(0, 40, 60)]
    found = [{BEST: [[Hypothesis([1], [0], 0.0)]]}, {BEST: [[Hypothesis([2], [0], 0.0)]]}]
    syllables = Windows(1.0, 1.0, lambda tokens: ["".join("-ab"[t] for t in tokens)])
    ((h,),) = syllables.join(pieces, found, factor=4, num_best=1)[BEST]
    assert h.words == ["a", "b"]


def test_batches():
    pieces = [Piece(0, 0, 100), Piece(1, 0, 30), Piece(2, 0, 300), Piece(3, 0, 0), Piece(4, 0, 90)]
    found = list(batches_of(pieces, 2.0))
    assert [[p.row for p in batch] for batch in found] == [[2], [0, 4], [1, 3]]


def test_oracles_compare_whole_transcripts():
    _, batch = batch_of([80, 180])
    opts = SearchOptions(decoding_method="fast_beam_search_nbest_oracle")
    decoder = OfflineDecoder(
        tiny_model(False),
        opts,
        windows=windows(),
        references=lambda texts: Transcripts(tokens=[[] for _ in texts]),
    )
    with pytest.raises(
        UserError, match="c1 is longer than --max-segment 1, but fast_beam_search_nbest_oracle"
    ):
        list(decoder.decode([batch]))

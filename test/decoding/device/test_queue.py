"""The encoder ahead of the search."""

import contextlib

import pytest
import torch
from decode_batches import batch_of
from tiny import tiny_model, utterances

from asr_core.decoding import offline
from asr_core.decoding.device.queue import EncoderQueue, behind
from asr_core.decoding.offline import OfflineDecoder
from asr_core.decoding.options import SearchOptions


def test_items_come_in_order_and_late():
    made = []

    def items():
        for i in range(5):
            made.append(i)
            yield i

    assert [(i, len(made)) for i in behind(items(), 0)] == [(i, i + 1) for i in range(5)]
    made.clear()
    assert [(i, len(made)) for i in behind(items(), 2)] == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)]
    assert list(behind([], 1)) == []


def test_what_came_before_an_error_is_not_lost():
    def items():
        yield 1
        raise KeyError

    late = behind(items(), 0)
    assert next(late) == 1
    with pytest.raises(KeyError):
        next(late)


class Ahead(EncoderQueue):
    """Begins batches as on a GPU."""

    def __init__(self, device):
        super().__init__(device)
        self.ahead, self.log = 1, []
        Ahead.last = self

    @contextlib.contextmanager
    def queued(self):
        self.log.append("encode")
        yield

    def wait_for(self, *tensors):
        assert all(isinstance(t, torch.Tensor) for t in tensors)
        self.log.append("search")


def test_batches_are_encoded_before_the_last_is_searched(monkeypatch):
    decoder = OfflineDecoder(model=tiny_model(False), opts=SearchOptions())
    batches = [batch_of(utterances(2, seed)) for seed in range(3)]
    usual = [d.hypotheses for d in decoder.decode(batches)]
    monkeypatch.setattr(offline, "EncoderQueue", Ahead)
    assert [d.hypotheses for d in decoder.decode(batches)] == usual
    assert Ahead.last.log == ["encode", "encode", "search", "encode", "search", "search"]

"""What is kept of searches, and for how long."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy_search import small_model

from asr_core.decoding.beam_options import FastBeamOptions
from asr_core.decoding.device import replay
from asr_core.decoding.device.beam import Contexts
from asr_core.decoding.device.frames import FrameBuffer
from asr_core.decoding.device.predictor import device_states


@pytest.fixture(autouse=True)
def forgetful():
    yield
    replay.forget()


def test_another_model_cannot_get_the_numbers_of_one_whose_search_is_kept():
    """Copies hold on to neither the joiner nor its weights, whose ids and addresses are the key."""
    model = SimpleNamespace(decoder=nn.Linear(2, 2), joiner=nn.Linear(2, 2))
    parts = [weakref.ref(part) for part in (model.decoder, model.joiner)]
    first = replay.kept(model, "copies", object)
    assert replay.kept(model, "copies", object) is first
    del model
    gc.collect()
    assert all(part() is not None for part in parts)
    replay.forget()
    gc.collect()
    assert all(part() is None for part in parts)


def test_searches_share_the_outputs_of_the_predictor():
    model = small_model()
    first = device_states(model)
    assert Contexts(model, FastBeamOptions(), 4).predictor is first and device_states(model) is first
    assert device_states(small_model()) is not first
    with torch.no_grad():
        next(model.decoder.parameters()).mul_(2)
    changed = device_states(model)
    assert not torch.equal(changed.rows, first.rows)
    replay.forget()
    assert device_states(model) is not changed


def test_memory_of_a_recorded_step_is_free_when_its_owner_goes(monkeypatch):
    played = []
    graph = SimpleNamespace(replay=lambda: played.append(1))
    monkeypatch.setattr(replay, "_recorded", lambda body, step, device: graph)

    class Owner:
        def __init__(self):
            self.steps = replay.Repeated(self.step, 3, torch.device("cuda"))

        def step(self, k):
            raise AssertionError("the graph is replayed")

    owner = Owner()
    owner.steps()
    there = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert there() is None and played == [1]
    finally:
        gc.enable()


def test_searches_of_one_size_share_memory_of_frames():
    like = torch.zeros(0, 0, 6)
    first, second = FrameBuffer(8, 64, like), FrameBuffer(16, 64, like)
    x, lens = torch.randn(9, 7, 6), torch.arange(9) % 8
    first.fill(x[:3, :2], lens[:3])
    second.fill(x, lens)
    assert torch.equal(second.at(torch.full((16,), 3))[:9], x[:, 3])
    assert first._frames is second._frames
    assert FrameBuffer(8, 128, like)._frames is not first._frames
    assert FrameBuffer(8, 64, like.double())._frames is not first._frames

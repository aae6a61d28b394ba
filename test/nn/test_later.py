"""What whitening finds in a backward pass is looked at in the next forward pass alone."""

import copy
import pickle

import pytest
import torch

from asr_core.nn import whiten
from asr_core.nn.later import Later
from asr_core.nn.whiten import Whiten, load_training_state, training_state


@pytest.fixture
def asked(monkeypatch):
    """How often the host has asked a device."""
    times = []
    monkeypatch.setattr(Later, "get", lambda self: times.append(1) or bool(self._host))
    return times


def backward(module, x):
    module.prob = 1.0
    module(x.requires_grad_()).sum().backward()


def test_backward_passes_do_not_ask(asked):
    module, white = (
        Whiten(1, 3.0, (0.1, 0.9), 0.1),
        torch.randn(500, 4, generator=torch.Generator().manual_seed(0)),
    )
    backward(module, white.clone())
    assert not asked and module.prob == 0.1 and len(asked) == 1
    assert module.prob == 0.1 and len(asked) == 1  # once is enough
    backward(module, white * torch.tensor([9.0, 0.1, 0.1, 0.1]))
    assert module.prob == 0.9


def test_modules_of_one_probability_do_not_look(monkeypatch):
    monkeypatch.setattr(whiten, "Later", lambda _: pytest.fail("looked"))
    backward(Whiten(1, 3.0, 1.0, 0.1), torch.randn(50, 4))


def test_copies_and_checkpoints_know_what_was_found():
    module = Whiten(1, 3.0, (0.1, 0.9), 0.1)
    backward(module, torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.__dict__["_exceeded"] is None and other.prob == 0.1
    backward(module, torch.randn(500, 4) * torch.tensor([9.0, 0.1, 0.1, 0.1]))
    state = training_state(torch.nn.Sequential(module))
    assert state == {"0": 0.9}
    backward(module, torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    load_training_state(torch.nn.Sequential(module), state)
    assert module.prob == 0.9

"""The trial of the largest batches before training."""

import random
from types import SimpleNamespace

import pytest
import torch
from cut_batches import BATCHES

from asr_core.training.asr_data import batch_advice, find_extremes
from asr_core.training.health.oom_scan import OomScan
from asr_core.training.state import random_states
from asr_core.utils.errors import UserError


def scan(limit, model):
    def load(trial, num_items):
        return {"seconds": sum(c.duration for c in trial.items[:num_items])}

    def advice(trial, num_fit):
        return batch_advice(trial, num_fit, 25.0)

    def loss_of(batch):
        random.random()
        if batch["seconds"] > limit:
            raise MemoryError
        return model(torch.rand(4, 8)).sum() * torch.rand(())

    return OomScan(model, loss_of, SimpleNamespace(load=load, advice=advice), torch.device("cpu"))


def test_the_scan_leaves_everything_as_it_was():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    before = random_states()
    scan(1e9, model).run(find_extremes(BATCHES))
    after = random_states()
    assert before["python"] == after["python"] and torch.equal(before["torch"], after["torch"])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


def test_memory_that_does_not_suffice_is_reported_with_what_would():
    model = torch.nn.Linear(8, 8)
    with pytest.raises(
        UserError,
        match="with the most audio.*: 5 cuts, 24 s, .*--max-duration 25; 4 of its cuts fit, "
        ".*--max-duration 19",
    ):
        scan(20.5, model).run(find_extremes(BATCHES)[1:])
    with pytest.raises(UserError, match="not even one of its cuts fits alone: lower --max-utt-duration"):
        scan(10.0, model).run(find_extremes(BATCHES)[:1])

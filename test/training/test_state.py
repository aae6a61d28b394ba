"""Counters and random states: what a checkpoint holds of them is what a run continues with."""

import random

import numpy as np
import pytest
import torch

from asr_core.training.metrics import MetricsTracker
from asr_core.training.state import (
    TrainState,
    random_states,
    seed_everything,
    seed_of_epoch,
    set_random_states,
)


def test_counters_survive_a_checkpoint_in_place():
    state = TrainState(
        epoch=3, batches_done=5, bad_spans=[[1, 2]], tot_loss=MetricsTracker(frames=2.0, loss=3.0)
    )
    saved = state.as_dict()
    assert type(saved["tot_loss"]) is dict  # plain values alone, for loaders that allow no others
    again = TrainState(epoch=9, recoveries=4)
    again.load(saved)
    assert again == state and isinstance(again.tot_loss, MetricsTracker)


def test_fields_of_version_0_1_are_found_by_their_former_names():
    saved = TrainState(bucket_run=4, batch_idx_train=7).as_dict()
    saved["alike"] = saved.pop("bucket_run")
    state = TrainState()
    state.load(saved)
    assert state.bucket_run == 4 and state.batch_idx_train == 7


def test_missing_fields_are_those_of_a_new_run_and_unknown_ones_a_mistake():
    state = TrainState(recoveries=2, tot_loss=MetricsTracker(loss=1.0))
    state.load({"epoch": 2})
    assert state == TrainState(epoch=2)
    with pytest.raises(TypeError, match="no_such_field"):
        state.load({"no_such_field": 1})


def test_reference_batches_go_on_when_steps_change_their_size():
    state = TrainState()
    state.count_at(2.0)
    state.batch_idx_train = 10
    assert state.count() == 20.0
    state.count_at(2.0)  # a restart without a change
    assert state.count() == 20.0
    state.count_at(0.5)
    state.batch_idx_train = 14
    assert state.count() == 22.0


def test_a_new_epoch_keeps_what_belongs_to_the_run():
    state = TrainState(epoch=1, batches_done=9, epoch_audio=8.0, batch_idx_train=9, bad_batches=1)
    state.start_epoch(2)
    assert (state.epoch, state.batches_done, state.epoch_audio, state.tot_loss) == (2, 0, 0.0, {})
    assert (state.batch_idx_train, state.bad_batches) == (9, 1)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(())), float(torch.randn(()))


def test_random_states_are_restored_from_plain_values():
    seed_everything(5)
    first = draw()
    saved = random_states()
    following = draw()
    seed_everything(5)
    assert draw() == first
    draw()
    set_random_states(saved)
    assert draw() == following


def test_seeds_of_ranks_epochs_and_restarts_differ():
    seeds = {
        seed_of_epoch(42, epoch, rank, step)
        for epoch in range(1, 31)
        for rank in range(16)
        for step in (0, 1, 2, 1000, 4000)
    }
    assert len(seeds) == 30 * 16 * 5
    assert seed_of_epoch(42, 1) == 42

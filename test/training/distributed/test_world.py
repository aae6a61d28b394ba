"""Ranks in lockstep, with the exchange between them played by hand."""

import signal

import pytest
import torch

from asr_core.training.distributed.launch import RankInfo
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.distributed.world import PeerLost, SingleProcess, peer_errors


def lockstep(rank, batches_of_rank, first=0, stop_at=None):
    """Run one rank; the answers of the others follow from the batches that they have."""
    size = len(batches_of_rank)
    world, stop = SingleProcess(RankInfo(rank, size)), StopRequest()
    held, position = [list(b) for b in batches_of_rank], [first]

    def exchange(values):
        due = [bool(h) and h[0] <= position[0] + r for r, h in enumerate(held)]
        rows = [[float(due[r]), float(not held[r]), 0.0] for r in range(size)]
        assert [float(v) for v in values[:2]] == rows[rank][:2]
        if stop_at is not None and position[0] >= stop_at:
            rows[size - 1][2] = float(signal.SIGTERM)
        position[0] += size
        for r in range(size):
            if due[r]:
                held[r].pop(0)
        return rows

    world.exchange = exchange
    batches = iter([{"batch_idx": index} for index in batches_of_rank[rank]])
    found = [(b and b["batch_idx"], end) for b, end in world.in_lockstep(batches, first, stop)]
    return found, stop


def test_each_step_has_one_batch_of_each_rank():
    ranks = [[0, 2, 4], [1, 3]]
    assert lockstep(0, ranks)[0] == [(0, 2), (2, 4), (4, 6)]
    assert lockstep(1, ranks)[0] == [(1, 2), (3, 4), (None, 6)]


def test_a_batch_that_could_not_be_read_leaves_a_gap_and_no_step_is_empty():
    ranks = [[0, 6], [1, 3, 7]]  # 2 is missing on rank 0; of 4 and 5 none remains
    assert lockstep(0, ranks)[0] == [(0, 2), (None, 4), (6, 8)]
    assert lockstep(1, ranks)[0] == [(1, 2), (3, 4), (7, 8)]


def test_it_continues_in_the_middle_of_an_epoch():
    assert lockstep(1, [[4, 6], [5, 7]], first=4)[0] == [(5, 6), (7, 8)]


def test_a_signal_to_any_rank_ends_all_of_them():
    for rank in (0, 1):
        found, stop = lockstep(rank, [[0, 2, 4], [1, 3, 5]], stop_at=2)
        assert len(found) == 1 and stop and stop.exit_status == 128 + signal.SIGTERM


def test_a_single_process_gets_all_batches_and_the_positions_after_them():
    batches = [{"batch_idx": i, "n": i} for i in (0, 1, 3)]
    found = list(SingleProcess().in_lockstep(iter(batches), 0, StopRequest()))
    assert [(b["n"], end) for b, end in found] == [(0, 1), (1, 2), (3, 4)]


def test_memory_that_runs_out_is_no_lost_peer():
    with pytest.raises(torch.cuda.OutOfMemoryError), peer_errors():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(PeerLost, match="Connection closed"), peer_errors():
        raise RuntimeError("Connection closed by peer")

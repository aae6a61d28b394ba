"""Ranks that work in lockstep: which batches make a step, with the exchange between them played by hand."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from asr_core.training.distributed.launch import RankInfo
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.distributed.world import _BUCKET_BYTES, SingleProcess, _buckets


class Played(SingleProcess):
    """A rank that gets the others' answers from ``play``."""

    def __init__(self, rank, size):
        super().__init__(RankInfo(rank, size))
        self.sent = None

    def exchange(self, values):
        self.sent = [float(v) for v in values]
        return self.answers


def play(batches_of_rank, first=0, signals=None):
    """Run all ranks step by step; return what each got and where each step ended."""
    size = len(batches_of_rank)
    got = [[] for _ in range(size)]
    stops = [SimpleNamespace(signum=0) for _ in range(size)]
    positions, held = first, [list(b) for b in batches_of_rank]
    for n in range(100):
        for rank, stop in enumerate(stops):
            stop.signum = (signals or {}).get((n, rank), stop.signum)
        due = [bool(h) and h[0] <= positions + rank for rank, h in enumerate(held)]
        rows = [[float(due[r]), float(not held[r]), float(stops[r].signum)] for r in range(size)]
        if any(row[2] for row in rows) or all(row[1] for row in rows):
            return got, rows
        positions += size
        for rank in range(size):
            if any(due):
                got[rank].append((held[rank][0] if due[rank] else None, positions))
            if due[rank]:
                held[rank].pop(0)
    raise AssertionError("endless")


def lockstep(rank, batches_of_rank, first=0, stop_at=None):
    """Run one rank; the answers of the others follow from the batches that they have."""
    size = len(batches_of_rank)
    world, stop = Played(rank, size), StopRequest()
    held, position = [list(b) for b in batches_of_rank], [first]

    def exchange(values):
        world.sent = values
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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_that_could_not_be_read_leaves_a_gap_and_no_step_is_empty(rank):
    ranks = [[0, 6], [1, 3, 7]]  # 2 is missing on rank 0; of 4 and 5 none remains
    assert lockstep(rank, ranks)[0] == play(ranks)[0][rank]
    assert [end for _, end in lockstep(rank, ranks)[0]] == [2, 4, 8]
    assert lockstep(0, ranks)[0] == [(0, 2), (None, 4), (6, 8)]


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


def test_gradients_travel_in_buckets_of_one_type_and_limited_size():
    big = torch.empty(_BUCKET_BYTES // 4 - 1)
    small, half = torch.empty(3), torch.empty(2, dtype=torch.float16)
    buckets = list(_buckets([big, half, small, small, big]))
    assert [len(b) for b in buckets] == [1, 2, 2] and buckets[0][0] is half
    assert buckets[1][0] is big and buckets[1][1] is small  # nothing is left out, and the order is kept
    assert list(_buckets([])) == []


def test_signals_only_set_a_flag_and_a_second_ctrl_c_interrupts(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM and not stop  # the processes have not agreed yet
        assert SingleProcess().agree_to_stop(stop) and stop and stop.exit_status == 143
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    printed = capfd.readouterr().err
    assert "SIGTERM: finishing this step" in printed and "SIGINT: finishing this step" in printed


def test_a_quiet_one_prints_nothing_and_a_forked_loader_ignores_the_signal(capfd):
    with StopRequest(quiet=True) as stop:
        stop._pid += 1  # as in a forked process
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == 0
        stop._pid -= 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""

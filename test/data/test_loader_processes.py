"""Loader processes that die."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from asr_core.data.loader_processes import in_processes
from asr_core.utils.errors import ProcessLost


class Deadly(Dataset):
    """Items of which number 5 kills the process that loads it."""

    def __init__(self, signum):
        self.signum = signum

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 5 and self.signum:
            os.kill(os.getpid(), self.signum)
        return torch.tensor(index)


@pytest.mark.parametrize(
    "signum, why",
    [
        (signal.SIGKILL, "was killed, as the system does when memory runs out: lower it"),
        (signal.SIGBUS, "had no more shared memory"),
        (signal.SIGSEGV, "ended by SIGSEGV: lower it, or find the cause with --num-workers 0"),
    ],
)
def test_a_loader_process_that_dies_is_one_error_between_two_batches(monkeypatch, signum, why):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    loader = DataLoader(Deadly(signum), batch_size=None, num_workers=2, multiprocessing_context="fork")
    handler = signal.getsignal(signal.SIGCHLD)
    got = []
    with pytest.raises(ProcessLost, match=why) as raised:
        got.extend(int(item) for item in in_processes(loader, "lower it"))
    assert got == sorted(got) and signal.getsignal(signal.SIGCHLD) == handler
    workers = raised.traceback[-1].frame.f_locals["batches"]._workers
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_undisturbed_loaders_yield_everything(num_workers):
    loader = DataLoader(Deadly(0), batch_size=None, num_workers=num_workers)
    assert [int(item) for item in in_processes(loader, "")] == list(range(12))

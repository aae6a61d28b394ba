"""Times of work on a device."""

import statistics
import time
from typing import Any, Callable, List, Sequence

import torch

_FLUSH_BYTES = 256 << 20  # more than any cache
_SLEEP_CYCLES = 2_000_000  # about a millisecond, in which the host gets ahead of the GPU


def synchronize(device: str) -> None:
    """Wait until the device has nothing left to do."""
    if device != "cpu":
        torch.cuda.synchronize()


def stage_times(
    stages: Sequence[Callable[[], Any]],
    device: str,
    seconds: float = 0.4,
    most: int = 50,
    flush: bool = True,
) -> List[float]:
    """Return the median milliseconds of each of several stages that follow each other.

    On a GPU these are times between events of its own, with a cold cache and a host that is ahead,
    so that short kernels are not measured by the time it takes to launch them. Two rounds warm up. On
    a CPU there is one round, as it comes.

    Args:
      stages: called in this order in each round.
      device: "cuda" or "cpu".
      seconds: spent on the rounds, more or less.
      most: rounds at most; at least three are timed.
      flush: whether the cache is emptied before each round.
    """
    if device == "cpu":  # a rehearsal, of which only the way counts
        return _round_on_cpu(stages)
    for _ in range(2):
        synchronize(device)
        began = time.perf_counter()
        for stage in stages:
            stage()
        synchronize(device)
        once = time.perf_counter() - began
    rounds = max(3, min(most, int(seconds / max(once, 1e-6))))
    times = [_round_on_gpu(stages, flush) for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times)]


def _round_on_cpu(stages: Sequence[Callable[[], Any]]) -> List[float]:
    clock = [time.perf_counter()]
    for stage in stages:
        stage()
        clock.append(time.perf_counter())
    return [1000 * (b - a) for a, b in zip(clock, clock[1:])]


def _round_on_gpu(stages: Sequence[Callable[[], Any]], flush: bool) -> List[float]:
    sleep = getattr(torch.cuda, "_sleep", None)
    if sleep is not None:
        sleep(_SLEEP_CYCLES)
    if flush:
        _flush_buffer().zero_()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 1)]
    events[0].record()
    for stage, event in zip(stages, events[1:]):
        stage()
        event.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in zip(events, events[1:])]


_buffers: List[torch.Tensor] = []


def _flush_buffer() -> torch.Tensor:
    if not _buffers:
        _buffers.append(torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda"))
    return _buffers[0]

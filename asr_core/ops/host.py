"""Copies from the host to a device that the host does not wait for."""

from typing import List

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return x (...) on a device.

    From memory that is not pinned, a copy to a GPU may wait until the GPU has done all that it was
    given.
    """
    if x.device.type != "cpu" or device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def padded(rows: List[List[int]], value: int, device: torch.device) -> Tensor:
    """Return lists of numbers as a tensor (N, longest) int64 on a device, padded with ``value``."""
    out = torch.full((len(rows), max((len(row) for row in rows), default=0)), value, dtype=torch.int64)
    for to, row in zip(out, rows):
        to[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return sent(out, device)

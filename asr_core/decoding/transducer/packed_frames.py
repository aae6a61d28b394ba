"""Batches cut into frames, so that a search never works on padding."""

from typing import List, NamedTuple

import torch
from torch import Tensor


class PackedFrames(NamedTuple):
    """A batch sorted by descending length and cut along time.

    Attributes:
      frames: for each time step t the frames (N_t, C) of utterances that go on; N_t never grows.
      order: (N,) int64, ``order[i]`` is the place in the given batch of the i-th longest utterance.
    """

    frames: List[Tensor]
    order: Tensor


def pack_frames(x: Tensor, lens: Tensor) -> PackedFrames:
    """Sort a batch by length and cut it along time; padding is left out.

    Args:
      x: (N, T, C).
      lens: (N,) int64, valid frames of each utterance, 0 allowed.
    """
    lens = lens.to(x.device)
    order = lens.argsort(descending=True, stable=True)
    time = torch.arange(x.size(1), device=x.device)
    alive = time.unsqueeze(1) < lens[order].unsqueeze(0)  # (T, N)
    sizes = [n for n in alive.sum(dim=1).tolist() if n > 0]
    packed = x.transpose(0, 1)[:, order][alive]  # (sum of lens, C), time-major
    return PackedFrames(list(packed.split(sizes)) if sizes else [], order)

"""Frames of a batch in a buffer that stays where it is."""

from typing import Hashable
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_memory: "WeakValueDictionary[Hashable, Tensor]" = WeakValueDictionary()


class FrameBuffer:
    """Projected frames of the utterances of a batch, one utterance after another.

    Buffers of one size have the same memory: no two searches run at a time, and frames are many.

    Args:
      rows: utterances that it has room for.
      room: frames that it has room for.
      like: (N, T, J), of the type that the frames have.

    Attributes:
      lens: (rows,) int64, frames of each utterance; 0 for rows without one.
    """

    def __init__(self, rows: int, room: int, like: Tensor) -> None:
        key = (room, like.size(2), like.dtype, like.device)
        frames = _memory.get(key)
        if frames is None:
            frames = _memory[key] = like.new_zeros(room, like.size(2))
        self._frames = frames
        self._row = torch.arange(rows, device=like.device)
        self._base = torch.zeros_like(self._row)  # first frame of each utterance
        self._last = room - 1
        self.lens = torch.zeros_like(self._row)

    def fill(self, x: Tensor, lens: Tensor) -> None:
        """Take over frames ``x`` (N, T, J) and their lengths ``lens`` (N,)."""
        num, num_frames, width = x.shape
        self._frames[: num * num_frames].copy_(x.reshape(-1, width))
        torch.mul(self._row, num_frames, out=self._base)
        self.lens.zero_()
        self.lens[:num].copy_(lens)

    def at(self, time: Tensor) -> Tensor:
        """Return the frames (rows, ..., J) at ``time`` (rows, ...); any where there is none."""
        base = self._base.view(-1, *[1] * (time.dim() - 1))
        index = (base + time).clamp_(max=self._last)
        return self._frames.index_select(0, index.flatten()).view(*time.shape, -1)

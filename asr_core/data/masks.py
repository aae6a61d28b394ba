"""What SpecAugment does to a batch, drawn in one place and done in another.

Loader processes draw, from the seed of the batch, and need not have the features for that; the
device that has them warps and masks all utterances together.
"""

import math
import random
from typing import NamedTuple, Optional, Protocol, Sequence, Tuple, runtime_checkable

import numpy as np
import torch
from lhotse.dataset import SpecAugment
from torch import Tensor

from asr_core.utils.device import to_device

_CUBIC = -0.75  # the free parameter of cubic convolution (Keys 1981), as in torch's interpolation


class Masks(NamedTuple):
    """Changes of features (N, T, C).

    Attributes:
      times: (N, T) bool, frames to mask.
      bins: (N, C) bool, mel filters to mask, in the frames of ``known``.
      known: (N, T) bool, the frames of which the mean is taken.
      mean: whether masked values become the mean of the utterance; else 0.
      warps: (N, 4) int64, for time warping, which comes first: first frame and number of frames of
        the utterance, the frame in it that moves, and where to, or 0 if none does. None: no
        warping.
    """

    times: Tensor
    bins: Tensor
    known: Tensor
    mean: bool
    warps: Optional[Tensor] = None

    def to(self, device: torch.device) -> "Masks":
        """Return them on a device, without waiting for it."""
        times, bins, known = (to_device(part, device) for part in (self.times, self.bins, self.known))
        warps = None if self.warps is None else to_device(self.warps, device)
        return Masks(times, bins, known, self.mean, warps)

    def apply(self, x: Tensor) -> Tensor:
        """Return the changed features; ``x`` (N, T, C), on the device of these tensors, stays."""
        if self.warps is not None:
            x = warp_times(x, self.warps)
        masked = self.times.unsqueeze(2) | (self.bins.unsqueeze(1) & self.known.unsqueeze(2))
        if not self.mean:
            return x.masked_fill(masked, 0.0)
        total = (x.sum(dim=2) * self.known).sum(dim=1)
        mean = total / (self.known.sum(dim=1) * x.shape[2]).clamp(min=1)
        return torch.where(masked, mean.to(x.dtype).view(-1, 1, 1), x)


@runtime_checkable
class DrawsMasks(Protocol):
    """A kind of SpecAugment that draws first and masks afterwards."""

    def draw(self, shape: Sequence[int], supervision_segments: Optional[Tensor] = None) -> Masks:
        """Draw the masks of features of a shape (N, T, C)."""
        ...


def draw_masks_of(augment: object, shape: Sequence[int], segments: Optional[Tensor]) -> Masks:
    """Draw what ``augment`` would do, from the same global random states in the same order.

    Args:
      augment: lhotse's SpecAugment, or one that draws by itself.
      shape: N, T, C.
      segments: (N, 3) int: row, first frame and number of frames of each supervision; None: none
        is known, and lhotse's must not warp.

    Raises:
      TypeError: it is of another kind.
    """
    if isinstance(augment, DrawsMasks):
        return augment.draw(shape, segments)
    if isinstance(augment, SpecAugment):
        return _draw_masks_of_lhotse(augment, shape, segments)
    raise TypeError(f"{type(augment).__name__} cannot tell its masks before it has the features")


def _draw_masks_of_lhotse(augment: SpecAugment, shape: Sequence[int], segments: Optional[Tensor]) -> Masks:
    """Draw what lhotse's SpecAugment would do, see :func:`draw_masks_of`."""
    num_rows, num_frames, num_bins = shape
    factor = augment.time_warp_factor or 0
    warps = torch.zeros(num_rows, 4, dtype=torch.int64)
    for row, start, length in segments.tolist() if segments is not None else ():
        if random.random() <= augment.p:
            length = min(length, num_frames - start)
            warps[row] = torch.tensor([start, length, *draw_warp(length, factor)])
    times, bins = (torch.zeros(num_rows, size, dtype=torch.bool) for size in (num_frames, num_bins))
    most = augment.max_frames_mask_fraction * num_frames  # frames under all masks together
    count = min(augment.num_frame_masks, math.ceil(most / augment.frames_mask_size))
    longest = min(augment.frames_mask_size, most // count) if count else 0
    for row in range(num_rows):
        if random.random() <= augment.p:
            _draw_spans(bins[row], augment.features_mask_size, augment.num_feature_masks)
            _draw_spans(times[row], int(longest), count)
    return Masks(times, bins, torch.ones_like(times), mean=True, warps=warps if factor >= 1 else None)


def draw_warp(length: int, factor: int) -> Tuple[int, int]:
    """Draw a frame of ``length`` and where it moves to; zeros if nothing moves."""
    if factor < 1 or length - factor <= factor + 1:
        return 0, 0
    centre = int(np.random.randint(factor + 1, length - factor))
    moved = int(np.random.randint(centre - factor, centre + factor + 1))
    return (0, 0) if moved == centre else (centre, moved)


def _draw_spans(mask: Tensor, longest: int, count: int) -> None:
    """Set random spans of ``mask`` (size,), each shorter than ``longest``."""
    lengths = torch.randint(0, longest, (1, count))
    starts = (torch.rand(1, count) * (len(mask) - lengths)).long()
    for start, length in zip(starts[0].tolist(), lengths[0].tolist()):
        mask[start : start + length] = True


def warp_times(x: Tensor, warps: Tensor) -> Tensor:
    """Stretch one part of each utterance in time and squeeze the other, by cubic interpolation.

    Args:
      x: (N, T, C).
      warps: see :class:`Masks`.
    """
    start, length, centre, moved = (column.unsqueeze(1) for column in warps.unbind(dim=1))
    at = torch.arange(x.shape[1], device=x.device) - start  # (N, T), frame of the utterance
    on_left = at < moved
    first = centre * ~on_left  # where the part begins that this frame comes from
    size = torch.where(on_left, centre, length - centre)
    place = torch.where(on_left, at, at - moved)
    scale = size.float() / torch.where(on_left, moved, length - moved).clamp(min=1).float()
    source = scale * (place + 0.5) - 0.5
    low = source.floor()
    out, rows = torch.zeros_like(x), torch.arange(len(x), device=x.device).unsqueeze(1)
    for shift, weight in zip((-1, 0, 1, 2), _cubic_weights((source - low).unsqueeze(2))):
        frame = (low.long() + shift).clamp(min=0).minimum(size - 1)
        index = (start + first + frame).clamp(0, x.shape[1] - 1)
        out.addcmul_(weight, x[rows, index])
    changed = (at >= 0) & (at < length) & (moved > 0)
    return torch.where(changed.unsqueeze(2), out, x)


def _cubic_weights(t: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of the frames at -1, 0, 1, 2 for a place ``t`` between 0 and 1."""

    def near(d: Tensor) -> Tensor:
        return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC

    return far(t + 1), near(t), near(1 - t), far(2 - t)

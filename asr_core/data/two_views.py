"""Two augmented views of each utterance, for CR-CTC (Yao et al. 2024, https://arxiv.org/abs/2410.05101)."""

import random
from typing import Optional

import torch
from lhotse.dataset.signal_transforms import time_warp
from torch import Tensor

from asr_core.data.augment import lhotse_spec_augment
from asr_core.data.spec_augment import AdaptiveSpecAugment

_WARP_PROBABILITY = 0.9  # as lhotse's SpecAugment warps


class TwoViews:
    """Augmentation that warps utterances in time, doubles the batch and masks both copies apart.

    All random choices come from python's, numpy's and torch's global states, which checkpoints
    save.

    Args:
      time_warp_factor: largest shift of a frame by the warping; below 1 turns it off.
      time_mask_ratio: number and total length of the masks of frames, relative to the usual
        SpecAugment. CR-CTC profits from more of them; the paper uses 2.5.
      adaptive: masks instead of the usual SpecAugment's.
    """

    def __init__(
        self, time_warp_factor: int, time_mask_ratio: float, adaptive: Optional[AdaptiveSpecAugment] = None
    ) -> None:
        self.time_warp_factor = time_warp_factor
        self.adaptive = adaptive
        # No time warping here: both views are warped alike, so that their frames correspond.
        self.mask = lhotse_spec_augment(time_warp_factor=0, more_time_masks=time_mask_ratio)

    def __call__(self, x: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Return two views of each utterance.

        Args:
          x: (N, T, C) features; left as they are.
          starts, lengths: (N,) the frames of each utterance's supervision, in which it is warped.

        Returns:
          (2 N, T, C); rows i and N + i are views of the same utterance.
        """
        x = self._warp(x, starts, lengths).repeat(2, 1, 1)
        if self.adaptive is not None:
            rows = torch.arange(len(x))
            segments = torch.stack([rows, starts.repeat(2), lengths.repeat(2)], dim=1)  # (2 N, 3)
            return self.adaptive(x, segments)
        too_short = self.mask.max_frames_mask_fraction * x.size(1) < 1  # for a mask of even one frame
        return x if too_short else self.mask(x)

    def _warp(self, x: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        if self.time_warp_factor < 1:
            return x
        warped = x.clone()
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist())):
            if random.random() < _WARP_PROBABILITY:
                span = slice(start, start + length)
                warped[row, span] = time_warp(x[row, span], self.time_warp_factor)
        return warped

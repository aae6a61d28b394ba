"""Two augmented views of each utterance, for CR-CTC (Yao et al. 2024, https://arxiv.org/abs/2410.05101)."""

import random
from typing import Optional

import torch
from torch import Tensor

from asr_core.data.augment import lhotse_spec_augment
from asr_core.data.masks import draw_masks_of, draw_warp, warp_times
from asr_core.data.spec_augment import AdaptiveSpecAugment
from asr_core.utils.device import to_device

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
        if self.mask.max_frames_mask_fraction * x.size(1) < 1:  # too short for a mask of even one frame
            return x
        return draw_masks_of(self.mask, x.shape, None).to(x.device).apply(x)

    def _warp(self, x: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        if self.time_warp_factor < 1:
            return x
        warps = torch.zeros(len(x), 4, dtype=torch.int64)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist())):
            if random.random() < _WARP_PROBABILITY:
                length = min(length, x.size(1) - start)
                warps[row] = torch.tensor([start, length, *draw_warp(length, self.time_warp_factor)])
        return warp_times(x, to_device(warps, x.device))

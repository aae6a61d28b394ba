"""Two augmented views of each utterance, as CR-CTC compares them (Yao et al. 2024, https://arxiv.org/abs/2410.05101)."""

import random
from typing import Optional

import torch
from torch import Tensor

from asr_core.data.spec_augment import AdaptiveSpecAugment

_WARP_PROBABILITY = 0.9


class TwoViews:
    """Warps each utterance in time, doubles the batch, and masks frequencies and times of both copies independently.

    All random choices come from python's, numpy's and torch's global states, which checkpoints save.

    Args:
      time_warp_factor: largest shift of a frame by the warping; below 1 there is none.
      time_mask_ratio: number and total length of the time masks relative to the usual SpecAugment.
      adaptive: what masks, in place of the usual SpecAugment.
    """

    def __init__(
        self, time_warp_factor: int, time_mask_ratio: float, adaptive: Optional[AdaptiveSpecAugment] = None
    ) -> None:
        from lhotse.dataset import SpecAugment

        self.time_warp_factor = time_warp_factor
        self.adaptive = adaptive
        self.mask = SpecAugment(
            time_warp_factor=0,  # both views of an utterance are warped alike, so that their frames correspond
            num_frame_masks=int(10 * time_mask_ratio),
            max_frames_mask_fraction=0.15 * time_mask_ratio,
            frames_mask_size=100,
            num_feature_masks=2,
            features_mask_size=27,
        )

    def __call__(self, x: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Two views.

        Args:
          x: (N, T, C) features; left as they are.
          starts, lengths: (N,) the frames of each utterance's supervision, in which it is warped.

        Returns:
          (2 N, T, C); rows i and N + i are views of the same utterance.
        """
        x = self._warp(x, starts, lengths).repeat(2, 1, 1)
        if self.adaptive is not None:
            return self.adaptive(
                x, torch.stack([torch.arange(len(x)), starts.repeat(2), lengths.repeat(2)], dim=1)
            )
        too_short = self.mask.max_frames_mask_fraction * x.size(1) < 1  # for a mask of even one frame
        return x if too_short else self.mask(x)

    def _warp(self, x: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        from lhotse.dataset.signal_transforms import time_warp

        if self.time_warp_factor < 1:
            return x
        warped = x.clone()
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist())):
            if random.random() < _WARP_PROBABILITY:
                warped[row, start : start + length] = time_warp(
                    x[row, start : start + length], self.time_warp_factor
                )
        return warped

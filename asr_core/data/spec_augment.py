"""SpecAugment whose masks are as long as the utterance allows (Park et al. 2019b, https://arxiv.org/abs/1912.05533)."""

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
from torch import Tensor

from asr_core.data.masks import Masks


def draw_masks(sizes: Tensor, count: int, ratio: float, most: int, width: int) -> Tensor:
    """Draw random spans within sequences.

    A span has from 0 to ``max(1, min(most, ratio * size))`` positions and begins anywhere it fits,
    all with the same probability; spans may overlap.

    Args:
      sizes: (N,) positions of each sequence.
      count: spans of each sequence.
      ratio: longest span, relative to the sequence.
      most: longest span in positions; 0: no such limit.
      width: positions of the result, at least the largest of ``sizes``.

    Returns:
      (N, width) boolean, True in a span. All choices come from torch's global state.
    """
    longest = (sizes.double() * ratio + 1e-9).floor()  # (N,); 1e-9: 0.29 * 100 must give 29
    if most > 0:
        longest = longest.clamp(max=most)
    longest = torch.minimum(longest.clamp(min=1), sizes.double()).unsqueeze(1)
    lengths = (torch.rand(len(sizes), count, dtype=torch.float64) * (longest + 1)).floor()
    places = sizes.unsqueeze(1) - lengths + 1  # (N, count), where a span may begin
    starts = (torch.rand(len(sizes), count, dtype=torch.float64) * places).floor()
    at = torch.arange(width)
    return ((at >= starts.unsqueeze(2)) & (at < (starts + lengths).unsqueeze(2))).any(dim=1)


@dataclass(eq=False)
class AdaptiveSpecAugment:
    """SpecAugment that masks times and frequencies of each utterance, within its valid frames.

    All random choices come from torch's global state.

    Attributes:
      time_masks: number of masks of frames.
      time_mask_ratio: longest of them, relative to the utterance.
      time_mask_max: longest of them, in frames; 0: no such limit.
      freq_masks: number of masks of mel filters.
      freq_mask_max: longest of them, in filters.
      fill: the value of masked positions: "zero", or "mean", the mean of the utterance's features.
      p: probability that an utterance is masked at all.
    """

    time_masks: int = 10
    time_mask_ratio: float = 0.05
    time_mask_max: int = 0
    freq_masks: int = 2
    freq_mask_max: int = 27
    fill: str = "zero"
    p: float = 1.0

    def __call__(self, x: Tensor, supervision_segments: Optional[Tensor] = None) -> Tensor:
        """Return masked features (N, T, C).

        Args:
          x: (N, T, C); left as they are.
          supervision_segments: (N, 3) int: of each utterance its row in x, first frame and number
            of frames; None: all frames.
        """
        return self.draw(x.shape, supervision_segments).to(x.device).apply(x)

    def draw(self, shape: Sequence[int], supervision_segments: Optional[Tensor] = None) -> Masks:
        """Draw the masks of features of a ``shape`` (N, T, C), see :meth:`__call__`."""
        num_rows, num_frames, num_bins = shape
        if supervision_segments is None:
            supervision_segments = torch.tensor([[i, 0, num_frames] for i in range(num_rows)]).reshape(-1, 3)
        rows, starts, sizes = supervision_segments.long().unbind(dim=1)
        frames = torch.arange(num_frames)
        valid = (frames >= starts.unsqueeze(1)) & (frames < (starts + sizes).unsqueeze(1))
        in_time = draw_masks(sizes, self.time_masks, self.time_mask_ratio, self.time_mask_max, num_frames)
        in_time = in_time.gather(1, (frames - starts.unsqueeze(1)).clamp(0, max(0, num_frames - 1))) & valid
        in_bins = draw_masks(
            torch.full_like(sizes, num_bins), self.freq_masks, 1.0, self.freq_mask_max, num_bins
        )
        chosen = (torch.rand(len(rows)) < self.p).unsqueeze(1)
        of_times, of_bins, known = (
            torch.zeros(num_rows, width, dtype=torch.bool) for width in (num_frames, num_bins, num_frames)
        )
        of_times[rows], of_bins[rows], known[rows] = in_time & chosen, in_bins & chosen, valid
        return Masks(of_times, of_bins, known, mean=self.fill == "mean")

"""Division of long recordings into pieces that an encoder with unlimited context can hold."""

from typing import List, Tuple

import torch
from torch import Tensor


def split_points(features: Tensor, max_frames: int, smooth: int = 21) -> List[Tuple[int, int]]:
    """Find the quietest places to cut a recording.

    Each piece ends at the quietest stretch in the last third of its greatest length, so that pieces
    are neither short nor end in a word.

    Args:
      features: (T, F) log-mel energies.
      max_frames: longest piece.
      smooth: frames over which energy is averaged, odd; 210 ms are longer than pauses in words.

    Returns:
      (first frame, frame after the last) of each piece, one after another.
    """
    total = len(features)
    if total <= max_frames:
        return [(0, total)]
    energy = features.mean(dim=1)
    kernel = torch.full((1, 1, smooth), 1.0 / smooth, dtype=energy.dtype)
    level = torch.nn.functional.conv1d(energy.cpu().view(1, 1, -1), kernel, padding="same")[0, 0]
    pieces, start = [], 0
    while total - start > max_frames:
        low = start + max_frames * 2 // 3
        end = low + int(level[low : start + max_frames].argmin()) + 1
        pieces.append((start, end))
        start = end
    return [*pieces, (start, total)]

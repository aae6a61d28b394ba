"""Division of long recordings into pieces that an encoder with unlimited context can hold.

The memory of such an encoder grows with the square of the length.
"""

from typing import Iterator, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

FRAMES_PER_SECOND = 100  # of features


class Piece(NamedTuple):
    """A part of a recording: number of the recording, and its frames first..end-1."""

    row: int
    first: int
    end: int


def split_points(
    features: Tensor, max_frames: int, smooth: int = 21, multiple: int = 1
) -> List[Tuple[int, int]]:
    """Find the quietest places to cut a recording.

    Each piece ends at the quietest stretch in the last third of its greatest length, so that pieces
    are neither short nor end in a word.

    Args:
      features: (T, F) log-mel energies.
      max_frames: longest piece.
      smooth: frames over which energy is averaged, odd; 210 ms are longer than pauses in words.
      multiple: pieces begin at multiples of this number of frames.

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
        end = max(start + multiple, end // multiple * multiple)
        pieces.append((start, end))
        start = end
    return [*pieces, (start, total)]


def pieces_of(features: Sequence[Tensor], max_seconds: float, multiple: int = 1) -> List[Piece]:
    """Divide recordings, given as features (T, F), into pieces of at most ``max_seconds``."""
    longest = int(max_seconds * FRAMES_PER_SECOND)
    return [
        Piece(row, first, end)
        for row, f in enumerate(features)
        for first, end in split_points(f, longest, multiple=multiple)
    ]


def batches_of(pieces: Sequence[Piece], max_duration: float) -> Iterator[List[Piece]]:
    """Yield pieces in batches of at most ``max_duration`` seconds with padding, the long first.

    A piece that is longer is a batch of its own.
    """
    waiting = sorted(pieces, key=lambda piece: piece.first - piece.end)
    most = int(max_duration * FRAMES_PER_SECOND)
    while waiting:
        count = max(1, most // max(1, waiting[0].end - waiting[0].first))
        yield waiting[:count]
        waiting = waiting[count:]

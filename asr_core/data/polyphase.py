"""Resampling of a batch on the device that it is on, by the filters that the CPU uses."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from asr_core.data.audio import resample

_TAPS = 12.0  # half a filter's length in periods of the lower rate, at most
_LARGEST_RATIO = 1000  # of rates in lowest terms: 44.1 kHz to 16 kHz is 441 to 160
_PIECE = 1 << 24  # elements that a piece is spread to


def has_filters(source: int, target: int) -> bool:
    """Return whether :func:`resample_batch` can resample from ``source`` to ``target`` Hz."""
    return source // math.gcd(source, target) <= _LARGEST_RATIO


@lru_cache(maxsize=16)
def _filters(source: int, target: int, device: torch.device) -> Tensor:
    """Return the filters (up, taps), where ``up`` samples come from every ``down``.

    The taps begin ``(taps - down) / 2`` samples before these. They are what the CPU's resampling
    makes of single samples, whichever filters the libraries of this machine give it.
    """
    common = math.gcd(source, target)
    up, down = target // common, source // common
    margin = math.ceil(_TAPS * max(1.0, down / up)) + 1
    blocks = -(-margin // down)  # on either side of the one with the single sample
    impulses = torch.zeros(down, (2 * blocks + 1) * down)
    impulses[:, blocks * down : (blocks + 1) * down] = torch.eye(down)
    answers = resample(impulses, source, target)[:, : (2 * blocks + 1) * up]
    answers = answers.view(down, 2 * blocks + 1, up)
    # the answer in block k to the sample in the middle one is the tap that many blocks later
    filters = answers.flip(1).permute(2, 1, 0).reshape(up, -1)  # (up, (2 blocks + 1) down)
    spare = blocks * down - margin  # taps of zero at either end
    return filters[:, spare : filters.shape[1] - spare].contiguous().to(device)


def resample_batch(x: Tensor, source: int, target: int) -> Tensor:
    """Resample signals (N, num_samples) from ``source`` to ``target`` Hz."""
    filters = _filters(source, target, x.device)
    up, taps = filters.shape
    down = source // math.gcd(source, target)
    blocks = -(-x.shape[1] // down)
    margin = (taps - down) // 2
    padded = nn.functional.pad(x, (margin, blocks * down - x.shape[1] + margin))
    spread = padded.unfold(1, taps, down)  # (N, blocks, taps)
    step = max(1, _PIECE // (len(x) * taps))
    parts = [(piece @ filters.t()).flatten(1) for piece in spread.split(step, dim=1)]
    return torch.cat(parts, dim=1)[:, : -(-x.shape[1] * target // source)]

"""Resampling of a batch on the device that it is on, by the filters that the CPU uses."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from lhotse.augmentation import Speed
from torch import Tensor, nn

from asr_core.data.audio import resample

_TAPS = 12.0  # half a filter's length in periods of the lower rate, at most
_LARGEST_RATIO = 1000  # of rates in lowest terms: 44.1 kHz to 16 kHz is 441 to 160
_PIECE = 1 << 24  # elements that a piece is spread to


def has_filters(source: int, target: int) -> bool:
    """Return whether :func:`resample_batch` can resample from ``source`` to ``target`` Hz."""
    return source // math.gcd(source, target) <= _LARGEST_RATIO


class Resampling(NamedTuple):
    """A change of the rate of audio.

    Attributes:
      source, target: the rates in Hz.
      speed: of speed perturbation: audio at ``target`` Hz is played this many times faster. For it
        lhotse has filters of its own. 0: no speed perturbation.
    """

    source: int
    target: int
    speed: float = 0.0

    def on_cpu(self, samples: Tensor) -> Tensor:
        """Resample (..., num_samples) as the CPU does."""
        if not self.speed:
            return resample(samples, self.source, self.target)
        return torch.from_numpy(Speed(self.speed)(samples.numpy(), self.target))


def num_resampled(num_samples: int, step: Resampling) -> int:
    """Return how many samples ``num_samples`` become."""
    return -(-num_samples * step.target // step.source)


@lru_cache(maxsize=64)  # rates of a corpus, times three speeds
def _filters(step: Resampling, device: torch.device) -> Tensor:
    """Return the filters (up, taps), where ``up`` samples come from every ``down``.

    The taps begin ``(taps - down) / 2`` samples before these. They are what the CPU's resampling
    makes of single samples, whichever filters the libraries of this machine give it.
    """
    common = math.gcd(step.source, step.target)
    up, down = step.target // common, step.source // common
    margin = math.ceil(_TAPS * max(1.0, down / up)) + 1
    blocks = -(-margin // down)  # on either side of the one with the single sample
    impulses = torch.zeros(down, (2 * blocks + 1) * down)
    impulses[:, blocks * down : (blocks + 1) * down] = torch.eye(down)
    answers = step.on_cpu(impulses)[:, : (2 * blocks + 1) * up]
    answers = answers.view(down, 2 * blocks + 1, up)
    # the answer in block k to the sample in the middle one is the tap that many blocks later
    filters = answers.flip(1).permute(2, 1, 0).reshape(up, -1)  # (up, (2 blocks + 1) down)
    spare = blocks * down - margin  # taps of zero at either end
    return filters[:, spare : filters.shape[1] - spare].contiguous().to(device)


def resample_batch(x: Tensor, step: Resampling) -> Tensor:
    """Resample signals (N, num_samples)."""
    filters = _filters(step, x.device)
    up, taps = filters.shape
    down = step.source // math.gcd(step.source, step.target)
    blocks = -(-x.shape[1] // down)
    margin = (taps - down) // 2
    padded = nn.functional.pad(x, (margin, blocks * down - x.shape[1] + margin))
    spread = padded.unfold(1, taps, down)  # (N, blocks, taps)
    size = max(1, _PIECE // (len(x) * taps))
    parts = [(piece @ filters.t()).flatten(1) for piece in spread.split(size, dim=1)]
    return torch.cat(parts, dim=1)[:, : num_resampled(x.shape[1], step)]

"""Sums of losses and the frames that they are averaged over."""

import math
from typing import Dict, Iterable, Iterator, Mapping, Optional, Tuple

import torch

from asr_core.training.batch_loss import BatchLoss, BatchSize


class MetricsTracker(Dict[str, float]):
    """Sums of losses by name, with the number of frames summed over as ``frames``."""

    def add(self, other: Mapping[str, float], keep: float = 1.0) -> "MetricsTracker":
        """Return ``keep`` times these sums plus ``other``.

        Raises:
          ValueError: a value of ``other`` is not finite. Leaving out that value alone would keep
            its frames in the denominator and so make the loss per frame too small.
        """
        bad = [f"{name} {value}" for name, value in other.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(f"sums that are not finite cannot be added: {', '.join(bad)}")
        out = MetricsTracker({name: value * keep for name, value in self.items()})
        for name, value in other.items():
            out[name] = out.get(name, 0.0) + value
        return out

    def is_finite(self) -> bool:
        """Return whether all sums are finite, so that they can be added to others."""
        return all(math.isfinite(value) for value in self.values())

    def per_frame(self) -> Iterator[Tuple[str, float]]:
        """Yield pairs of name and loss per frame."""
        frames = self.get("frames", 0.0)
        for name, value in self.items():
            if name != "frames":
                yield name, value / frames if frames else math.nan

    def mean_loss(self) -> float:
        """Return the loss per frame; infinity if nothing was added."""
        return dict(self.per_frame()).get("loss", math.inf)

    def __str__(self) -> str:
        losses = ", ".join(f"{name}={value:.4g}" for name, value in self.per_frame())
        return f"{losses}, over {self.get('frames', 0.0):.2f} frames. "


def losses_of(out: BatchLoss) -> MetricsTracker:
    """Return the losses of a batch as numbers, with a single copy from the device."""
    names = ["loss", *out.parts]
    values = torch.stack([out.loss.detach().float(), *(p.float() for p in out.parts.values())]).tolist()
    return MetricsTracker({"frames": float(out.frames), **dict(zip(names, values))})


def sums_of(out: Optional[BatchLoss], size: Optional[BatchSize]) -> MetricsTracker:
    """Return the losses and the size of a rank's batch, for summing over the ranks.

    Without a batch they are zeros.
    """
    if out is None or size is None:
        return MetricsTracker(loss=0.0, frames=0.0, audio=0.0, utterances=0.0)
    return MetricsTracker(losses_of(out), audio=size.amount, utterances=float(size.items))


def sum_over_ranks(parts: Iterable[Mapping[str, float]]) -> MetricsTracker:
    """Return the sum of each value; it is not finite if it is not finite on some rank."""
    out = MetricsTracker()
    for part in parts:
        for name, value in part.items():
            out[name] = out.get(name, 0.0) + value
    return out

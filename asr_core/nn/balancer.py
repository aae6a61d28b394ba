"""The module that keeps each channel's mean and magnitude within bounds."""

import math
import random
from typing import Optional

from torch import Tensor, nn

from asr_core.nn.scheduled import FloatLike, ScheduledFloat
from asr_core.ops.balancer import Bounds, balance_gradient


def mean_of_positive(proportion: float) -> float:
    """Mean over standard deviation at which about ``proportion`` of a bell-shaped variable is positive (a crude fit)."""
    x, eps = 2.0 * proportion - 1.0, 1e-10  # eps keeps 0 and 1 finite
    return 0.8139535143 * 0.5 * (math.log(1.0 + x + eps) - math.log(1.0 - x + eps))


def rms_of_abs(mean_abs: float) -> float:
    """Root mean square of a Gaussian variable whose mean magnitude is ``mean_abs``."""
    return 1.25331413732 * mean_abs


class Balancer(nn.Module):
    """Identity that, in training, sometimes adds a gradient where a channel is out of bounds (Yao et al. 2023, section 3.4).

    Args:
      num_channels: size of the axis of channels.
      channel_dim: that axis.
      min_positive, max_positive: bounds on the proportion of positive values.
      min_abs, max_abs: bounds on the mean magnitude.
      grad_scale: size of the added gradient relative to each element's own.
      prob: how often it acts; by default 0.5 falling to 0.125 over 8000 batches.
    """

    def __init__(
        self,
        num_channels: int,
        channel_dim: int = -1,
        min_positive: FloatLike = 0.05,
        max_positive: FloatLike = 0.95,
        min_abs: FloatLike = 0.2,
        max_abs: FloatLike = 100.0,
        grad_scale: FloatLike = 0.04,
        prob: Optional[FloatLike] = None,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.channel_dim = channel_dim
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        self.grad_scale = grad_scale
        self.prob = ScheduledFloat((0.0, 0.5), (8000.0, 0.125), default=0.4) if prob is None else prob

    def drawn(self, x: Tensor) -> bool:
        """Whether to act on ``x`` this time; draws a random number where that is open."""
        return self.training and x.requires_grad and random.random() < float(self.prob)

    def bounds(self) -> Bounds:
        """(lowest mean/stddev, highest mean/stddev, lowest rms, highest rms) at this moment."""
        return (
            mean_of_positive(float(self.min_positive)),
            mean_of_positive(float(self.max_positive)),
            rms_of_abs(float(self.min_abs)),
            rms_of_abs(float(self.max_abs)),
        )

    def act(self, x: Tensor) -> Tensor:
        """``x`` with the balancer's gradient attached."""
        return balance_gradient(x, self.bounds(), float(self.grad_scale), self.channel_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape with ``num_channels`` on ``channel_dim``, returned as it is."""
        return self.act(x) if self.drawn(x) else x

    def extra_repr(self) -> str:
        """The size, for ``print(model)``."""
        return f"{self.num_channels}, channel_dim={self.channel_dim}"

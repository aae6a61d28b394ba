"""The balancer, which keeps each channel's mean and magnitude within bounds (Yao et al. 2023,
appendix A.2.1).

A channel that is almost always negative, or almost always positive, or tiny, has nearly no gradient
behind a Swoosh and does not come back by itself; one that is huge breaks float16 and drowns the
others. The balancer lets all channels pass as they are, and adds a small gradient to those that are
out of bounds.
"""

import math
import random
from typing import Optional

from torch import Tensor

from asr_core.nn.draws import Chance, Drawn
from asr_core.nn.scheduled import FloatLike, ScheduledFloat
from asr_core.ops.balancer import Bounds, balance_gradient, balance_gradient_as_drawn


def mean_of_positive(proportion: float) -> float:
    """Return the mean over the standard deviation of a bell-shaped variable of which about
    ``proportion`` is positive.

    A Gaussian's needs the inverse error function; a scaled artanh is close to it between 0.05 and
    0.95, which is enough for a bound.
    """
    x, eps = 2.0 * proportion - 1.0, 1e-10  # eps keeps 0 and 1 finite
    return 0.8139535143 * 0.5 * (math.log(1.0 + x + eps) - math.log(1.0 - x + eps))


def rms_of_abs(mean_abs: float) -> float:
    """Return the root mean square of a Gaussian variable whose mean magnitude is ``mean_abs``."""
    return 1.25331413732 * mean_abs  # sqrt(pi / 2)


class Balancer(Chance):
    """Identity on (N, ..., C) that, in training, sometimes adds a gradient where a channel is out
    of bounds.

    The bounds are loose by default: they catch modules that go wrong, and leave those alone that
    learn. Where a bound changes during training, it is loose at the beginning, when the statistics
    still say little, or tight while modules must become active.

    Args:
      num_channels: C, size of the axis of channels.
      channel_dim: that axis.
      min_positive, max_positive: bounds on the proportion of positive values.
      min_abs, max_abs: bounds on the mean magnitude.
      grad_scale: size of the added gradient relative to each element's own: 4 % are felt over many
        steps, and no step depends on it.
      prob: probability of acting on a batch, to save time; by default 0.5 falling to 0.125 over
        8000 batches: most channels go wrong at the beginning.
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
        """Return whether to act on ``x`` this time, drawing a random number if needed.

        What was drawn before is known when the gradient is computed.
        """
        if not self.training or not x.requires_grad:
            return False
        return self.draws is not None or random.random() < float(self.prob)

    def draw(self, x: Tensor) -> Drawn:
        """Draw whether to act, and find the bounds."""
        acts = random.random() < float(self.prob)
        return Drawn((acts, *self.bounds(), float(self.grad_scale)) if acts else ())

    def bounds(self) -> Bounds:
        """Return the bounds at the present batch count."""
        return (
            mean_of_positive(float(self.min_positive)),
            mean_of_positive(float(self.max_positive)),
            rms_of_abs(float(self.min_abs)),
            rms_of_abs(float(self.max_abs)),
        )

    def act(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, ..., C) with the balancer's gradient attached."""
        if self.draws is not None:
            return balance_gradient_as_drawn(x, self.draws.table, self.index, self.channel_dim)
        return balance_gradient(x, self.bounds(), float(self.grad_scale), self.channel_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, ..., C), with the channels on ``channel_dim``, unchanged."""
        return self.act(x) if self.drawn(x) else x

    def extra_repr(self) -> str:
        """Return the sizes for ``print(model)``."""
        return f"{self.num_channels}, channel_dim={self.channel_dim}"

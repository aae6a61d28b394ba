"""Whitening, which keeps activations' covariance near a multiple of the identity (Yao et al. 2023,
appendix A.2.2).

Activations tend to collapse into few directions, and then most of a layer's width is wasted. The
metric is 1 where all directions have the same variance, and C where one direction has all of it.
Whitening adds a gradient where the metric is beyond a limit.
"""

import random
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from torch import Tensor, nn

from asr_core.nn.draws import Chance, Drawn
from asr_core.nn.later import Later
from asr_core.nn.scheduled import FloatLike
from asr_core.ops.whiten import number_of_report, whiten_gradient, whiten_gradient_as_drawn


class Whiten(Chance):
    """Identity on (..., C) that, in training, sometimes adds the gradient of the whitening metric.

    It acts with probability ``prob``: the higher of two values after the metric was found at or
    above the limit, else the lower. So it costs nearly nothing where nothing is wrong, and soon
    sees that something went wrong.

    Args:
      num_groups: groups of channels (last axis) that are whitened separately.
      whitening_limit: metric below which nothing is done; 1 is perfectly white. Limits of 3 to 10
        leave a layer much freedom.
      prob: (lower, higher) probability, or one for both.
      grad_scale: norm of the added gradient relative to the incoming one.
    """

    def __init__(
        self,
        num_groups: int,
        whitening_limit: FloatLike,
        prob: Union[float, Tuple[float, float]],
        grad_scale: FloatLike,
    ) -> None:
        super().__init__()
        low, high = (prob, prob) if isinstance(prob, (int, float)) else prob
        if not (num_groups >= 1 and float(whitening_limit) >= 1 and 0 < low <= high <= 1):
            raise ValueError(
                "Whiten needs num_groups and limit of at least 1 and 0 < prob <= 1, "
                f"got num_groups={num_groups}, limit={float(whitening_limit)}, prob={prob}"
            )
        self.num_groups = num_groups
        self.whitening_limit = whitening_limit
        self.grad_scale = grad_scale
        self.min_prob, self.max_prob = float(low), float(high)
        self._prob = self.max_prob
        self._exceeded: Optional[Later] = None  # found in a backward pass, not looked at yet
        self._number = 0  # by which an operator finds it

    @property
    def prob(self) -> float:
        """The present probability. It depends on what the last backward pass found, which a GPU may
        not have computed until the next forward pass asks.
        """
        if self._exceeded is not None:
            self.prob = self.max_prob if self._exceeded.get() else self.min_prob
        return self._prob

    @prob.setter
    def prob(self, value: float) -> None:
        self._prob, self._exceeded = value, None

    def __getstate__(self) -> Dict[str, Any]:
        self.prob = self.prob  # copies do not wait for a device
        return {**self.__dict__, "_number": 0}

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., C) unchanged; in training its gradient may get the whitening penalty."""
        if not self.training or not x.requires_grad:
            return x
        if self.draws is not None:
            return whiten_gradient_as_drawn(x, self.num_groups, self.draws.table, self.index)
        if random.random() > self.prob:
            return x
        grad_scale = float(self.grad_scale)
        if grad_scale == 0.0:
            return x
        return whiten_gradient(x, self.num_groups, float(self.whitening_limit), grad_scale, self._report)

    def draw(self, x: Tensor) -> Drawn:
        """Draw whether to act, and find the limit."""
        if random.random() > self.prob:
            return Drawn()
        grad_scale = float(self.grad_scale)
        if self._number == 0:
            self._number = number_of_report(self._report)
        return Drawn((grad_scale != 0.0, float(self.whitening_limit), grad_scale, self._number))

    def _report(self, exceeded: Tensor) -> None:
        """Choose the next probability, when it is asked for."""
        if self.min_prob != self.max_prob:
            self._exceeded = Later(exceeded)

    def extra_repr(self) -> str:
        """Return the settings for ``print(model)``."""
        limit = float(self.whitening_limit)
        return f"num_groups={self.num_groups}, limit={limit:g}, prob=({self.min_prob:g}, {self.max_prob:g})"


def training_state(model: nn.Module) -> Dict[str, float]:
    """Return the current probabilities of all Whiten modules by name: what a resumed run needs
    beside the state dict.
    """
    return {name: m.prob for name, m in model.named_modules() if isinstance(m, Whiten)}


def load_training_state(model: nn.Module, state: Mapping[str, float]) -> None:
    """Restore what :func:`training_state` returned; names that the model lacks are ignored."""
    for name, module in model.named_modules():
        if isinstance(module, Whiten) and name in state:
            module.prob = float(state[name])

"""Numbers that change with the count of training batches: dropout rates, limits of balancers, ...

Most schedules end after 4000 to 20000 batches of the reference size. Early in training modules that
do little harm can be skipped often, which stabilises those after them; later the same rates would
cost accuracy.
"""

from typing import Tuple, Union

from torch import nn


class ScheduledFloat(nn.Module):
    """Float that is piecewise linear in the batch count and constant outside the given points.

    It is a module without parameters so that :func:`set_batch_count` finds it. ``float(s)`` is
    ``default`` in evaluation mode and as long as no batch count was set.

    Args:
      points: pairs ``(batch_count, value)`` with rising batch counts.
      default: the value outside training.
    """

    def __init__(self, *points: Tuple[float, float], default: float = 0.0) -> None:
        super().__init__()
        counts = [p[0] for p in points]
        if not points or any(a >= b for a, b in zip(counts, counts[1:])):
            raise ValueError(f"the points of a schedule need rising batch counts, got {points}")
        self.points = tuple((float(c), float(v)) for c, v in points)
        self.default = float(default)
        self.value = self.default

    def at(self, batch_count: float) -> float:
        """Return the schedule's value after ``batch_count`` batches."""
        points = self.points
        if batch_count <= points[0][0]:
            return points[0][1]
        for (c0, v0), (c1, v1) in zip(points, points[1:]):
            if batch_count <= c1:
                return v0 + (v1 - v0) * (batch_count - c0) / (c1 - c0)
        return points[-1][1]

    def set_batch_count(self, batch_count: float) -> None:
        """Set the value that ``float()`` gives during training."""
        self.value = self.at(batch_count)

    def __float__(self) -> float:
        return self.value if self.training else self.default

    def extra_repr(self) -> str:
        """Return the points and the default for ``print(model)``."""
        return ", ".join(f"{c:g}:{v:g}" for c, v in self.points) + f", default={self.default:g}"


FloatLike = Union[float, ScheduledFloat]


def set_batch_count(model: nn.Module, batch_count: float) -> None:
    """Move every :class:`ScheduledFloat` inside ``model`` to ``batch_count`` (counted at the
    reference batch size).
    """
    for module in model.modules():
        if isinstance(module, ScheduledFloat):
            module.set_batch_count(batch_count)


def whitening_limit(limit: float, ratio: float = 2.0) -> ScheduledFloat:
    """Return the usual schedule of a whitening limit: from ``limit`` to ``ratio * limit`` over
    20000 batches.

    The limit grows because whitening keeps modules from collapsing before they have learned
    anything; a trained model has good reasons for directions of unequal variance.
    """
    return ScheduledFloat((0.0, limit), (20000.0, ratio * limit), default=limit)

"""Confidences of words, from those of their tokens."""

import math
from typing import Sequence


def aggregate(confidences: Sequence[float], how: str) -> float:
    """Return the ``min``, ``mean`` or ``prod`` of the confidences of a word's tokens."""
    if how == "min":
        return min(confidences)
    return math.prod(confidences) if how == "prod" else sum(confidences) / len(confidences)

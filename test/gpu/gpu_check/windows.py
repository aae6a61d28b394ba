"""Windows of the pruned loss that two ways to compute it share."""

from typing import Any, Optional

from torch import Tensor

from asr_core.ops import rnnt_loss

MOST_APART = 0.01  # share of frames whose windows may differ


class SameWindows:
    """A context in which the pruned loss looks through the windows that it chose first.

    A window is chosen by the largest of sums, some of which nearly tie. Where rounding decides
    otherwise, the gradients of a frame are others, though either choice is right.
    """

    def __init__(self) -> None:
        self._usual = rnnt_loss.get_rnnt_prune_ranges
        self._first: Optional[Tensor] = None
        self._last: Optional[Tensor] = None

    def __enter__(self) -> "SameWindows":
        rnnt_loss.get_rnnt_prune_ranges = self._choose
        return self

    def __exit__(self, *error: Any) -> None:
        rnnt_loss.get_rnnt_prune_ranges = self._usual

    def _choose(self, *args: Any, **kwargs: Any) -> Tensor:
        self._last = self._usual(*args, **kwargs)
        if self._first is None:
            self._first = self._last
        return self._first.to(self._last.device)

    def apart(self) -> float:
        """Return the share of frames for which the last choice was not the first."""
        return windows_apart(self._first, self._last)


def windows_apart(a: Optional[Tensor], b: Optional[Tensor]) -> float:
    """Return the share of frames whose windows (N, T, R) differ; 0 where there are none."""
    if a is None or b is None:
        return 0.0
    if a.shape != b.shape:
        return 1.0
    return float((a.cpu() != b.cpu()).any(dim=-1).float().mean())

"""A batch of RNN-T lattices, as every back end gets it."""

from typing import NamedTuple

import torch
from torch import Tensor

RNNT_TYPES = ("regular", "modified", "constrained")
# Stands for log(0) inside the recursions: finite, so that the difference of two of them is no NaN.
NEVER = -1e30
# Scores below this are sums that hold NEVER: no path leads there.
UNREACHED = -1e29
# Weights of the factorised normaliser stay below this, so that sums of them over a whole utterance
# stay finite in float32.
LARGEST_WEIGHT = 1e34


class Lattice(NamedTuple):
    """Labels and limits of a batch of lattices.

    Attributes:
      symbols: (B, S) int64 labels.
      boundary: (B, 4) int64 rows of first symbol, first frame, number of symbols, number of frames.
      blank: the termination symbol.
      rnnt_type: one of :data:`RNNT_TYPES`.
      delay_penalty: score per frame by which a symbol comes before the middle of the utterance.
      fast_emit: weight of FastEmit, which multiplies the gradients of the symbols'
        log-probabilities by one plus it.
    """

    symbols: Tensor
    boundary: Tensor
    blank: int
    rnnt_type: str
    delay_penalty: float = 0.0
    fast_emit: float = 0.0

    @property
    def regular(self) -> bool:
        """Whether a symbol stays in its frame (otherwise it moves on by one)."""
        return self.rnnt_type == "regular"

    @property
    def constrained(self) -> bool:
        """Whether a symbol is followed by a forced blank on the same frame."""
        return self.rnnt_type == "constrained"

    def inside(self, num_frames: int, num_contexts: int) -> Tensor:
        """Return which cells (B, T, S + 1) lie within the boundary."""
        s_first, t_first, s_last, t_last = (limit[:, None, None] for limit in self.boundary.unbind(1))
        frames = torch.arange(num_frames, device=self.boundary.device)[:, None]
        contexts = torch.arange(num_contexts, device=self.boundary.device)
        return (frames >= t_first) & (frames < t_last) & (contexts >= s_first) & (contexts <= s_last)


class Band(NamedTuple):
    """Lattices of which each frame has only a window of consecutive contexts (Kuang et al. 2022).

    Attributes:
      lattice: labels and limits.
      s_begin: (B, T) int64, the first context of each frame's window.
    """

    lattice: Lattice
    s_begin: Tensor

    def positions(self, s_range: int) -> Tensor:
        """Return the context of each cell of the band, (B, T, s_range)."""
        return self.s_begin.unsqueeze(2) + torch.arange(s_range, device=self.s_begin.device)

    def labels(self, s_range: int) -> Tensor:
        """Return the symbol that follows each cell of the band, (B, T, s_range).

        The blank at s = S.
        """
        symbols = torch.nn.functional.pad(
            self.lattice.symbols, (0, 1), value=self.lattice.blank
        )  # (B, S + 1)
        where = self.positions(s_range)
        return symbols.unsqueeze(1).expand(-1, where.shape[1], -1).gather(2, where)


class Counts(NamedTuple):
    """Occupation counts of arcs: the probability that a path takes the arc, minus the derivative of
    the loss by its score.

    The second and third axes are frames and contexts, of which a back end may have one more than
    there are symbols or frames; those have count 0.

    Attributes:
      symbol: (B, T, S), of the symbols.
      blank: (B, T, S + 1), of the blanks.
    """

    symbol: Tensor
    blank: Tensor


def fold_forced_blanks(counts: Counts, lattice: Lattice) -> Tensor:
    """Return the counts of all blanks (B, T, S + 1), including the forced ones of a constrained
    lattice.

    Args:
      counts: counts of symbols (B, T, >= S), of which the first S are used, and of the blanks with
        arcs of their own (B, T, S + 1).
      lattice: the lattices.
    """
    if not lattice.constrained:
        return counts.blank
    forced = torch.zeros_like(counts.blank)
    forced[:, :, 1:] = counts.symbol[:, :, : forced.shape[2] - 1]
    return counts.blank + forced

"""What every back end is told about the lattices of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

RNNT_TYPES = ("regular", "modified", "constrained")
# Weights of the factorised normaliser stay below this, so that sums of them over a whole utterance stay finite in float32.
LARGEST_WEIGHT = 1e34


class Lattice(NamedTuple):
    """Labels and limits of a batch of lattices.

    Attributes:
      symbols: (B, S) int64 labels.
      boundary: (B, 4) int64 rows of first symbol, first frame, number of symbols, number of frames.
      blank: the termination symbol.
      rnnt_type: one of :data:`RNNT_TYPES`.
      delay_penalty: score per frame by which a symbol comes before the middle of the utterance.
      fast_emit: weight of FastEmit, which multiplies the gradients of the symbols' log-probabilities by one plus it.
    """

    symbols: Tensor
    boundary: Tensor
    blank: int
    rnnt_type: str
    delay_penalty: float
    fast_emit: float = 0.0

    @property
    def regular(self) -> bool:
        """Whether a symbol leaves the frame as it is (otherwise it moves on by one)."""
        return self.rnnt_type == "regular"

    @property
    def constrained(self) -> bool:
        """Whether a symbol is followed by a forced blank on the same frame."""
        return self.rnnt_type == "constrained"


class Factors(NamedTuple):
    """Scores of lattices whose logits are sums of a frame's and a context's part.

    The score of a label v (``symbols[s]`` or the blank) at (s, t) is ::

        scale ((am[t, v] + lm[s, v]) - (log_dot[t, s] + lm_max[s] + am_max[t])) + context[s] + am_scale am[t, v] + frame[t]

    Attributes:
      am: (B, T, C).
      lm_symbol, lm_blank: (B, S), (B, S + 1), lm at the next symbol and at the blank.
      am_max, lm_max: (B, T), (B, S + 1), the maxima that have been subtracted before taking exponentials.
      dot, log_dot: (B, T, S + 1), sums over the vocabulary of the products of these exponentials, and their logarithms.
      context_symbol, context_blank: (B, S), (B, S + 1).
      frame: (B, T).
      scale, am_scale: numbers.
    """

    am: Tensor
    lm_symbol: Tensor
    lm_blank: Tensor
    am_max: Tensor
    lm_max: Tensor
    dot: Tensor
    log_dot: Tensor
    context_symbol: Tensor
    context_blank: Tensor
    frame: Tensor
    scale: float
    am_scale: float


def fold_forced_blanks(occ_x: Tensor, occ_y: Tensor, lattice: Lattice) -> Tensor:
    """Occupation counts of all blanks, the forced ones of a constrained lattice included.

    Args:
      occ_x: (B, T, >= S) counts of the symbols; only the first S of the last axis are used.
      occ_y: (B, T, S + 1) counts of the blanks that are arcs of their own.
    """
    if not lattice.constrained:
        return occ_y
    forced = torch.zeros_like(occ_y)
    forced[:, :, 1:] = occ_x[:, :, : occ_y.shape[2] - 1]
    return occ_y + forced

"""The interface of the back ends of the RNN-T losses, and what passes through it.

B utterances, T frames, S symbols, C entries of the vocabulary; R = s_range contexts per window.
Back ends are modules: their functions are those of :class:`RnntBackend`. They know nothing of
autograd, which :mod:`asr_core.ops.rnnt.functions` takes care of.
"""

from typing import Callable, NamedTuple, Optional, Protocol, Tuple

import torch
from torch import Tensor

from asr_core.ops.rnnt.lattice import Band, Counts, Lattice


class Exponentials(NamedTuple):
    """Exponentials of rows of logits, scaled by their maxima.

    A row with NaN, +inf or nothing but -inf has exponentials 0, maximum NaN and sum 1.

    Attributes:
      probs: (B, T, C), e^(x - maximum).
      largest: (B, T), the maxima.
      total: (B, T), the sums of the exponentials.
    """

    probs: Tensor
    largest: Tensor
    total: Tensor


class Factors(NamedTuple):
    """Scores of lattices whose logits are sums of a frame's and a context's part.

    The score of a label v (``symbols[s]`` or the blank) at (s, t) is ::

        scale ((am[t, v] + lm[s, v]) - (log_dot[t, s] + lm_max[s] + am_max[t])) + context[s] +
        am_scale am[t, v] + frame[t]

    Attributes:
      am: (B, T, C).
      lm_symbol: (B, S), lm at the next symbol.
      lm_blank: (B, S + 1), lm at the blank.
      am_max: (B, T), the maxima that were subtracted before taking exponentials.
      lm_max: (B, S + 1), likewise.
      dot: (B, T, S + 1), sums over the vocabulary of the products of these exponentials.
      log_dot: (B, T, S + 1), their logarithms.
      context_symbol: (B, S), ``context[s]`` of the symbols.
      context_blank: (B, S + 1), of the blanks.
      frame: (B, T).
      scale: weight of the sum's own log-probability.
      am_scale: weight of the am-only log-probability.
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


class SimpleLoss(NamedTuple):
    """Losses of factorised lattices, and what their gradients need.

    Attributes:
      loss: (B,).
      counts: symbols (B, T + 1, S) in a regular lattice, else (B, T, S), and blanks (B, T, S + 1);
        None if no gradient was wanted.
      weights: (B, T, S + 1), those of the normalisers, ``scale * count / dot``, at most
        LARGEST_WEIGHT; None likewise.
    """

    loss: Tensor
    counts: Optional[Counts] = None
    weights: Optional[Tensor] = None


class BandScores(NamedTuple):
    """Log-probabilities of the arcs of a band.

    Attributes:
      symbol: (B, T, R), NEVER at s = S.
      blank: (B, T, R).
      norm: (B, T, R), the log normalisers of the logits.
    """

    symbol: Tensor
    blank: Tensor
    norm: Tensor


class BandLoss(NamedTuple):
    """Losses of the lattices of a band.

    Attributes:
      loss: (B,).
      counts: (B, T, R) those of the symbols and of all blanks, forced ones included; None if no
        gradient was wanted.
    """

    loss: Tensor
    counts: Optional[Counts] = None


class BlockKernels(NamedTuple):
    """Work on M cells first ... first + M - 1, all those of some frames, of the B T R cells of a
    band, which are numbered in this order.

    Attributes:
      tanh_rows: takes am (B, T, J), lm (B, S + 1, J), ranges (B, T, R), first, first + M and a
        float type; returns ``tanh(am + lm)`` (M, J).
      tanh_gradient: takes these rows (M, J), their gradient (M, J), first, R and am_grad (B, T, J);
        turns the gradient into that of the sums, in place, and writes it, summed over each frame,
        to am_grad.
      scores: takes logits (M, C), the band, first and scores, of which it writes these cells'.
      gradient: takes logits (M, C), the band, first, norm (B, T, R), counts and scale (B,), see
        :meth:`RnntBackend.pruned_gradient`; the gradient takes the place of the logits.
    """

    tanh_rows: Callable[[Tensor, Tensor, Tensor, int, int, torch.dtype], Tensor]
    tanh_gradient: Callable[[Tensor, Tensor, int, int, Tensor], None]
    scores: Callable[[Tensor, Band, int, BandScores], None]
    gradient: Callable[[Tensor, Band, int, Tensor, Counts, Tensor], None]


class RnntBackend(Protocol):
    """The work on lattices; same results from every back end."""

    score_dtype: Optional[torch.dtype]
    """Float type of scores and counts of bands; None: that of the logits."""

    half_logits: bool
    """Whether the logits of bands may be of half precision."""

    blocks: Optional[BlockKernels]
    """What it can do with blocks of a band's cells; None: no more than with whole bands."""

    def exp_rows(self, x: Tensor) -> Exponentials:
        """Compute the exponentials of the rows of x (B, T, C)."""

    def sum_by_label(self, x: Tensor, labels: Tensor, num_columns: int) -> Tensor:
        """Return the sums (num_columns,) of x (B, S) over equal labels (B, S)."""

    def simple_lattice(self, factors: Factors, lattice: Lattice, want_grad: bool) -> SimpleLoss:
        """Compute the losses (B,) of factorised lattices, and with ``want_grad`` what their
        gradients need.
        """

    def am_gradient(
        self, product: Tensor, probs: Tensor, counts: Counts, scale: Tensor, lattice: Lattice
    ) -> Tensor:
        """Multiply ``product`` by ``probs`` in place, and subtract the scaled counts at the columns
        of symbols and blank.

        Args:
          product: (B, T, C).
          probs: (B, T, C).
          counts: symbols (B, >= T, S), blanks (B, T, S + 1).
          scale: (B,).
          lattice: the lattices.
        """

    def pruned_scores(self, logits: Tensor, band: Band) -> BandScores:
        """Normalise logits (B, T, R, C) and pick the scores of symbols and blanks.

        A row with no distribution has NaN.
        """

    def band_lattice(self, scores: BandScores, band: Band, want_grad: bool) -> BandLoss:
        """Compute the losses (B,) of pruned lattices, and if wanted the counts (B, T, R)."""

    def pruned_gradient(
        self, logits: Tensor, norm: Tensor, counts: Counts, scale: Tensor, band: Band
    ) -> Tensor:
        """Return the gradient of ``sum(scale * loss)`` with respect to the logits.

        Args:
          logits: (B, T, R, C); rows without counts may hold anything, NaN too.
          norm: (B, T, R), from :meth:`pruned_scores`.
          counts: (B, T, R), from :meth:`band_lattice`.
          scale: (B,).
          band: the lattices and windows.

        Returns:
          (B, T, R, C)
        """

    def prune_ranges(self, px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
        """Choose the first context of each frame's window, (B, T).

        Args:
          px_grad: (B, S, T + 1) in a regular lattice, else (B, S, T), counts of the symbols.
          py_grad: (B, S + 1, T), counts of the blanks.
          boundary: (B, 4).
          s_range: contexts per window, at most S + 1.
        """

    def gather_contexts(self, lm: Tensor, ranges: Tensor) -> Tensor:
        """Return the rows of ``lm`` (B, S + 1, C) at ``ranges`` (B, T, R): (B, T, R, C)."""

    def add_contexts(self, grad: Tensor, ranges: Tensor, first: int, out: Tensor) -> None:
        """Add rows ``grad`` (M, C) of the cells first ... first + M - 1 of ``ranges`` (B, T, R) to
        those of their contexts, ``out`` (B, S + 1, C).
        """

    def sum_contexts(
        self, am_grad: Optional[Tensor], lm_grad: Optional[Tensor], ranges: Tensor, num_contexts: int
    ) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """Sum gradients (B, T, R, C) to those of am (B, T, C) and of lm (B, num_contexts, C).

        None stays None.
        """

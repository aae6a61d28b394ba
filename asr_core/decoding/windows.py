"""Decoding of long utterances in windows: their division, and the join of what is found in them."""

import itertools
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import Results
from asr_core.decoding.segmentation import FRAMES_PER_SECOND, Piece, pieces_of

_NOTHING = Hypothesis([], [], 0.0, words=[], confidences=[])


@dataclass(frozen=True)
class Windows:
    """How utterances are divided.

    Attributes:
      max_segment: seconds of the longest piece.
      max_duration: seconds of pieces in a batch.
      words: writes tokens as words, which never go on from one piece to the next.
    """

    max_segment: float
    max_duration: float
    words: Callable[[Sequence[int]], List[str]]

    def needed(self, features: Tensor) -> bool:
        """Return whether an utterance (T, F) is longer than a piece."""
        return len(features) > int(self.max_segment * FRAMES_PER_SECOND)

    def pieces(self, features: Sequence[Tensor], subsampling_factor: int) -> List[Piece]:
        """Divide utterances (T, F) where frames of encoder output begin: times stay exact."""
        return pieces_of(features, self.max_segment, subsampling_factor)

    def join(
        self, pieces: Sequence[Piece], found: Sequence[Results], *, factor: int, num_best: int
    ) -> Results:
        """Return the results of whole utterances.

        Args:
          pieces: the pieces of all utterances, in their order.
          found: for each piece its results, of one utterance.
          factor: feature frames per frame of encoder output.
          num_best: hypotheses wanted of each utterance.
        """
        pairs = zip(pieces, found)
        utterances = [list(group) for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].row)]
        return {
            name: [
                self._joined(
                    [(piece, result[name][0]) for piece, result in parts],
                    factor,
                    max(1, num_best),
                )
                for parts in utterances
            ]
            for name in found[0]
        }

    def _joined(
        self, parts: Sequence[Tuple[Piece, List[Hypothesis]]], factor: int, num_best: int
    ) -> List[Hypothesis]:
        """Return the best hypotheses of an utterance, those of its only piece as they are."""
        if len(parts) == 1:
            return parts[0][1]
        joined, last = [_NOTHING], parts[-1][0]
        for piece, hypotheses in parts:
            # a causal model may emit a piece's last tokens in the silence that is appended to it
            frames = max(1, (piece.end - piece.first) // factor)
            latest = None if piece is last else frames - 1
            placed = [self._placed(h, piece.first // factor, latest) for h in hypotheses]
            joined = _best_pairs(joined, placed, num_best)
        return joined

    def _placed(self, h: Hypothesis, begin: int, latest: Optional[int]) -> Hypothesis:
        """Return a hypothesis of a piece with times in the utterance and with its words."""
        times = h.timestamps if latest is None else [min(t, latest) for t in h.timestamps]
        words = self.words(h.tokens) if h.words is None else h.words
        return h._replace(timestamps=[begin + t for t in times], words=words)


def _best_pairs(first: Sequence[Hypothesis], second: Sequence[Hypothesis], number: int) -> List[Hypothesis]:
    """Return the best hypotheses one after the other, no two with the same tokens.

    The best pair is that of the two first, which their search has chosen, whatever the scores say.
    """
    best, *others = [_pair(a, b) for a in first for b in second]
    found: Dict[Tuple[int, ...], Hypothesis] = {}
    for h in (best, *sorted(others, key=lambda h: -h.log_prob)):
        found.setdefault(tuple(h.tokens), h)
    return list(found.values())[:number]


def _pair(a: Hypothesis, b: Hypothesis) -> Hypothesis:
    known = a.confidences is not None and b.confidences is not None
    return Hypothesis(
        tokens=a.tokens + b.tokens,
        timestamps=a.timestamps + b.timestamps,
        log_prob=a.log_prob + b.log_prob,
        words=(a.words or []) + (b.words or []),
        confidences=(a.confidences or []) + (b.confidences or []) if known else None,
    )

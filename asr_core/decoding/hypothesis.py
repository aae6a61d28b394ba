"""What a search returns."""

from typing import List, NamedTuple, Optional


class Hypothesis(NamedTuple):
    """One recognised utterance.

    Attributes:
      tokens: token ids without the initial context and without blanks.
      timestamps: for each token, the encoder frame (0-based, 25 Hz for Zipformer) at which it was emitted.
      log_prob: natural log-probability of the hypothesis as the search counts it, not divided by its length.
      words: the words, where the search knows them by itself; None where they are to be made of the tokens.
      confidences: for each token how far it can be trusted, 0 to 1; None unless :mod:`asr_core.decoding.confidence` was asked.
    """

    tokens: List[int]
    timestamps: List[int]
    log_prob: float
    words: Optional[List[str]] = None
    confidences: Optional[List[float]] = None


class GreedyAnswer:
    """What a greedy search has found in one stream up to now, and how many frames it has seen."""

    def __init__(self) -> None:
        self.tokens: List[int] = []
        self.timestamps: List[int] = []
        self.log_prob = 0.0
        self.num_frames = 0

    def hypothesis(self) -> Hypothesis:
        """The answer up to now."""
        return Hypothesis(list(self.tokens), list(self.timestamps), self.log_prob)

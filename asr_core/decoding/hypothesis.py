"""Results of searches."""

from typing import List, NamedTuple, Optional


class Hypothesis(NamedTuple):
    """One recognised utterance.

    Attributes:
      tokens: token ids without the initial context and without blanks.
      timestamps: for each token, the encoder frame (0-based, 25 Hz for Zipformer) that emitted it.
      log_prob: natural log-probability of the hypothesis as the search counts it, not divided by
        its length.
      words: the words, where the search knows them; None where they follow from the tokens.
      confidences: for each token how far it can be trusted, 0 to 1; None unless
        :mod:`asr_core.decoding.confidence` was asked for them.
    """

    tokens: List[int]
    timestamps: List[int]
    log_prob: float
    words: Optional[List[str]] = None
    confidences: Optional[List[float]] = None


class GreedyAnswer:
    """The result of a greedy search in one stream so far.

    Attributes:
      tokens, timestamps, log_prob: see :class:`Hypothesis`.
      num_frames: frames consumed.
    """

    def __init__(self) -> None:
        self.tokens: List[int] = []
        self.timestamps: List[int] = []
        self.log_prob = 0.0
        self.num_frames = 0

    def hypothesis(self) -> Hypothesis:
        """Return the result up to now."""
        return Hypothesis(list(self.tokens), list(self.timestamps), self.log_prob)

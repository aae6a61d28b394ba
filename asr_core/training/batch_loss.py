"""The loss and the size of one batch."""

from typing import Dict, NamedTuple

from torch import Tensor


class BatchLoss(NamedTuple):
    """The loss of one batch, summed over its N items.

    Attributes:
      loss: the objective; a scalar, or (N,) with ``reduction="none"``.
      parts: its unweighted parts by name, detached, for the log; shaped as ``loss``.
      frames: number of terms in the sum, by which logged losses are divided: encoder frames, or
        tokens of a language model.
    """

    loss: Tensor
    parts: Dict[str, Tensor]
    frames: int


class BatchSize(NamedTuple):
    """The size of one batch.

    Attributes:
      items: utterances, or sentences of a language model.
      amount: in the unit of the task: seconds of audio, or tokens.
    """

    items: int
    amount: float

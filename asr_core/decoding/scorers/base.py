"""The interface of models that add their scores to the recognizer's in beam searches."""

from typing import List, Protocol, Sequence, Tuple

from torch import Tensor

from asr_core.decoding.states import States, concatenate, pick


class Scorer(Protocol):
    """A model that scores a sequence token by token.

    Its states are tensors (N, B, ...), one entry for each of the B hypotheses of N utterances.
    """

    def start(self, num: int, beam: int) -> States:
        """Return the states (N, B, ...) before the first token, N = ``num`` and B = ``beam``."""
        ...

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score one more token of each hypothesis.

        Args:
          states: those before the token.
          token: (N, B) int64.
          emits: (N, B), false where a hypothesis does not grow.

        Returns:
          Scores (N, B), 0 where ``emits`` is false, and the states after the token.
        """
        ...

    def finish(self, states: States) -> Tensor:
        """Return the scores (N, B) of ending."""
        ...

    def join(self, parts: Sequence[States]) -> States:
        """Return the states of several groups of utterances as those of one group."""
        return concatenate(parts)


def extend_all(
    scorers: Sequence[Scorer], before: Sequence[States], parent: Tensor, token: Tensor, emits: Tensor
) -> Tuple[List[Tensor], Tuple[States, ...]]:
    """Extend the states of each scorer to the hypotheses that a search has chosen.

    Args:
      scorers: any number.
      before: the states of each.
      parent: (N, B), the places that the hypotheses come from.
      token, emits: see :meth:`Scorer.extend`.

    Returns:
      The scores (N, B) of each scorer, and the states of each.
    """
    added: List[Tensor] = []
    after: List[States] = []
    for scorer, states in zip(scorers, before):
        score, states = scorer.extend(pick(states, parent), token, emits)
        added.append(score)
        after.append(states)
    return added, tuple(after)

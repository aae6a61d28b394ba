"""Scorers of tokens: neural language models, token n-grams, contextual biasing."""

from typing import List, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.states import States
from asr_core.lm.neural import SOS, NeuralLm
from asr_core.lm.ngram import NgramLm


class NeuralScorer(Scorer):
    """A neural language model's log-probability times ``scale`` (shallow fusion).

    The end of the sentence is not scored. The states are the log-probabilities (N, B, V) of the
    next token, and the states of the language model with the axes (N, B) in front.

    Args:
      lm: over the same tokens as the search.
      scale: weight of the log-probability.
    """

    def __init__(self, lm: NeuralLm, scale: float) -> None:
        self._lm = lm
        self._scale = scale
        self._device = next(lm.parameters()).device

    def start(self, num: int, beam: int) -> States:
        """Return the states after the symbol for the start of a sentence, see :class:`Scorer`."""
        sos = torch.full((1, 1), SOS, dtype=torch.int64, device=self._device)
        next_token, states = self._lm.score_tokens(sos, torch.ones(1, dtype=torch.int64), None)
        first = (next_token, *(s.transpose(0, 1) for s in states))  # (1, ...)
        return tuple(s.unsqueeze(1).expand(num, beam, *s.shape[1:]) for s in first)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`; only hypotheses that grow are evaluated."""
        next_token, *inner = states
        score = self.score_of(next_token, token, emits)
        index = emits.flatten().nonzero().squeeze(1)  # (M,), the hypotheses that grow
        if not len(index):
            return score, states
        flat = to_lm(inner)
        new, after = self._lm.score_tokens(
            token.flatten()[index].unsqueeze(1),
            torch.ones(len(index), dtype=torch.int64),
            self._lm.select_states(flat, index),
        )  # (M, V)
        flat = self._lm.replace_states(flat, index, after)
        next_token = next_token.flatten(0, 1).index_copy(0, index, new).unflatten(0, token.shape)
        return score, (next_token, *from_lm(flat, token.size(1)))

    def score_of(self, next_token: Tensor, token: Tensor, emits: Tensor) -> Tensor:
        """Return the scores (N, B) of ``token`` (N, B) by the log-probabilities (N, B, V)."""
        found = next_token.gather(2, token.unsqueeze(2)).squeeze(2)
        return found.mul(self._scale).masked_fill(~emits, 0.0)

    def finish(self, states: States) -> Tensor:
        """Return zeros (N, B), see :class:`Scorer`."""
        return states[0].new_zeros(states[0].shape[:2])

    def join(self, parts: Sequence[States]) -> States:
        """Return the states of several groups of utterances as those of one group."""
        beam = parts[0][0].size(1)
        inner = self._lm.join_states([to_lm(states[1:]) for states in parts])
        return (torch.cat([states[0] for states in parts]), *from_lm(inner, beam))


def to_lm(states: Sequence[Tensor]) -> States:
    """Reshape states (N, B, K, ...) to (K, N * B, ...), as a language model has them."""
    return tuple(s.flatten(0, 1).transpose(0, 1) for s in states)


def from_lm(states: States, beam: int) -> List[Tensor]:
    """Reshape states (K, N * B, ...) to (N, B, K, ...)."""
    return [s.transpose(0, 1).unflatten(0, (-1, beam)) for s in states]


class NgramScorer(Scorer):
    """A token n-gram's log-probability times ``scale``; the state (N, B) is that of the n-gram.

    A negative scale gives the low-order density ratio, LODR (Zheng et al. 2022, "An empirical study
    of language model integration for transducer based speech recognition",
    https://arxiv.org/abs/2203.16776).

    Args:
      lm: over token ids.
      scale: weight of the log-probability.
      device: device of the search.
    """

    def __init__(self, lm: NgramLm, scale: float, device: torch.device) -> None:
        self._lm = lm
        self._scale = scale
        self._device = device

    def start(self, num: int, beam: int) -> States:
        """Return the state after the start of a sentence, see :class:`Scorer`."""
        first = self._lm.initial_state(bos=True)
        return (torch.full((num, beam), first, dtype=torch.int64, device=self._device),)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        score = torch.zeros(token.shape, device=self._device)
        state = states[0].clone()
        if bool(emits.any()):
            log_prob, after = self._lm.score_batch(state[emits].cpu().numpy(), token[emits].cpu().numpy())
            score[emits] = torch.from_numpy(log_prob).to(self._device) * self._scale
            state[emits] = torch.from_numpy(after).to(state)
        return score, (state,)

    def finish(self, states: States) -> Tensor:
        """Return zeros (N, B), see :class:`Scorer`."""
        return torch.zeros(states[0].shape, device=self._device)


class ContextScorer(Scorer):
    """The bonus of contextual biasing; the state (N, B) is that of the graph.

    Args:
      graph: the phrases.
      device: device of the graph and of the search.
    """

    def __init__(self, graph: ContextGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device

    def start(self, num: int, beam: int) -> States:
        """Return the state before the first token, see :class:`Scorer`."""
        return (torch.zeros(num, beam, dtype=torch.int64, device=self._device),)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        bonus, after = self._graph.advance(states[0], token)
        return bonus.masked_fill(~emits, 0.0), (torch.where(emits, after, states[0]),)

    def finish(self, states: States) -> Tensor:
        """Take back the bonus (N, B) of phrases that are not completed, see :class:`Scorer`."""
        return self._graph.finish(states[0])

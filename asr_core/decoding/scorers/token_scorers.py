"""Scores that beam searches add for each token: neural language models, token n-grams, phrases to favour."""

from typing import Any, List, Protocol, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.transducer.context_table import internal_log_probs
from asr_core.decoding.transducer.predictor import States, histories, select
from asr_core.lm.neural import SOS


class Scorer(Protocol):
    """Something that scores a sequence token by token.

    Its states are tensors (n, beam, ...), one entry for each hypothesis.
    """

    def start(self, num: int, beam: int) -> States:
        """States before the first token."""
        ...

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Scores (n, beam) of ``token`` (n, beam), 0 where ``emits`` is false, and the states after it."""
        ...

    def finish(self, states: States) -> Tensor:
        """Scores (n, beam) of ending."""
        ...


class NeuralScorer:
    """A neural language model's log-probability times ``scale``; the end of the sentence is not scored.

    Args:
      lm: a :class:`~asr_core.lm.neural.NeuralLm`.
      scale: the weight.
    """

    def __init__(self, lm: Any, scale: float) -> None:
        self._lm = lm
        self._scale = scale
        self._device = next(lm.parameters()).device

    def start(self, num: int, beam: int) -> States:
        """See :class:`Scorer`; the first state is the log-probabilities (n, beam, V) of the next token."""
        sos = torch.full((1, 1), SOS, dtype=torch.int64, device=self._device)
        next_token, states = self._lm.score_tokens(sos, torch.ones(1, dtype=torch.int64), None)
        inner = (
            s.transpose(0, 1).unsqueeze(1).expand(num, beam, *(-1 for _ in s.shape[:1]), *s.shape[2:])
            for s in states
        )
        return (next_token.unsqueeze(1).expand(num, beam, -1), *inner)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """See :class:`Scorer`; only histories that grow are evaluated."""
        next_token, *inner = states
        score = next_token.gather(2, token.unsqueeze(2)).squeeze(2).mul(self._scale).masked_fill(~emits, 0.0)
        index = emits.flatten().nonzero().squeeze(1)
        if not len(index):
            return score, states
        n, beam = token.shape
        flat = tuple(s.flatten(0, 1).transpose(0, 1) for s in inner)
        new, after = self._lm.score_tokens(
            token.flatten()[index].unsqueeze(1),
            torch.ones(len(index), dtype=torch.int64),
            self._lm.select_states(flat, index),
        )
        flat = self._lm.replace_states(flat, index, after)
        next_token = next_token.flatten(0, 1).index_copy(0, index, new).unflatten(0, (n, beam))
        return score, (next_token, *(s.transpose(0, 1).unflatten(0, (n, beam)) for s in flat))

    def finish(self, states: States) -> Tensor:
        """See :class:`Scorer`."""
        return states[0].new_zeros(states[0].shape[:2])


class NgramScorer:
    """A token n-gram's log-probability times ``scale``, which is negative for LODR.

    Args:
      lm: an :class:`~asr_core.lm.ngram.NgramLm` over token ids.
      scale: the weight.
      device: where the search is.
    """

    def __init__(self, lm: Any, scale: float, device: torch.device) -> None:
        self._lm = lm
        self._scale = scale
        self._device = device

    def start(self, num: int, beam: int) -> States:
        """See :class:`Scorer`; the state is that of the n-gram."""
        return (
            torch.full((num, beam), self._lm.initial_state(bos=True), dtype=torch.int64, device=self._device),
        )

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """See :class:`Scorer`."""
        score = torch.zeros(token.shape, device=self._device)
        state = states[0].clone()
        if bool(emits.any()):
            log_prob, after = self._lm.score_batch(state[emits].cpu().numpy(), token[emits].cpu().numpy())
            score[emits] = torch.from_numpy(log_prob).to(self._device) * self._scale
            state[emits] = torch.from_numpy(after).to(state)
        return score, (state,)

    def finish(self, states: States) -> Tensor:
        """See :class:`Scorer`."""
        return torch.zeros(states[0].shape, device=self._device)


class ContextScorer:
    """The bonus of :class:`~asr_core.decoding.scorers.context_graph.ContextGraph`.

    Args:
      graph: the phrases.
      device: where they and the search are.
    """

    def __init__(self, graph: ContextGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device

    def start(self, num: int, beam: int) -> States:
        """See :class:`Scorer`; the state is that of the graph."""
        return (torch.zeros(num, beam, dtype=torch.int64, device=self._device),)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """See :class:`Scorer`."""
        bonus, after = self._graph.advance(states[0], token)
        return bonus.masked_fill(~emits, 0.0), (torch.where(emits, after, states[0]),)

    def finish(self, states: States) -> Tensor:
        """See :class:`Scorer`."""
        return self._graph.finish(states[0])


class InternalLmScorer:
    """Minus ``scale`` times what the transducer's own language model says of a token, given that it is none but blank.

    (Variani et al. 2020, https://arxiv.org/abs/2003.07705; Meng et al. 2021, https://arxiv.org/abs/2011.01991.)

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript.
      scale: the weight of what is subtracted.
    """

    def __init__(self, model: Any, scale: float) -> None:
        self._joiner = model.joiner
        self._histories = histories(model)
        self._scale = scale

    def start(self, num: int, beam: int) -> States:
        """See :class:`Scorer`; the states are the predictor's."""
        return self._histories.start(num, beam)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """See :class:`Scorer`; only where a token is emitted the joiner is asked."""
        blank, score = self._histories.blank_id, torch.zeros(token.shape, device=token.device)
        if not bool(emits.any()):
            return score, states
        decoder_out = self._histories.output(select(states, emits))
        log_probs = internal_log_probs(self._joiner, decoder_out, blank, 0.0, 1.0)
        log_probs[:, blank] = float("-inf")
        found = log_probs.log_softmax(dim=1).gather(1, token[emits].unsqueeze(1)).squeeze(1)
        score[emits] = -self._scale * found.float()
        return score, self._histories.append(states, token, emits)

    def finish(self, states: States) -> Tensor:
        """See :class:`Scorer`."""
        return torch.zeros(states[0].shape[:2], device=states[0].device)


def pick(states: States, parent: Tensor) -> States:
    """The states of the hypotheses at places ``parent`` (n, beam)."""
    if all(s.dim() == 2 for s in states):  # faster
        return tuple(s.gather(1, parent) for s in states)
    rows = torch.arange(len(parent), device=parent.device).unsqueeze(1)
    return tuple(s[rows, parent] for s in states)


def join(parts: Sequence[States]) -> States:
    """States of several groups of utterances as one; those of a transformer, whose histories differ in length, are padded."""
    return tuple(_cat(list(tensors)) for tensors in zip(*parts))


def _cat(tensors: List[Tensor]) -> Tensor:
    if tensors[0].dim() == 5:  # (n, beam, layers, history, width)
        longest = max(t.size(3) for t in tensors)
        tensors = [F.pad(t, (0, 0, 0, longest - t.size(3))) for t in tensors]
    return torch.cat(tensors)

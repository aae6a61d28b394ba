"""Scorers with fixed shapes, which never wait for the device."""

from typing import Hashable, List, Optional, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import LogitOptions
from asr_core.decoding.device.automata import Automaton, ngram_automaton, phrases, token_ngram
from asr_core.decoding.device.predictor import device_states
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.scorers.token_scorers import NeuralScorer, from_lm, to_lm
from asr_core.decoding.scorers.word_ngram import WordNgramScorer
from asr_core.decoding.states import States
from asr_core.decoding.transducer.internal_lm import internal_log_probs
from asr_core.lm.arpa import LN10
from asr_core.lm.neural import RnnLm


class AutomatonScorer(Scorer):
    """The scores of an automaton, whose state (N, B) is the scorer's."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton

    def start(self, num: int, beam: int) -> States:
        """Return the state before the first token, see :class:`Scorer`."""
        first, device = self._automaton.first, self._automaton.end.device
        return (torch.full((num, beam), first, dtype=torch.int64, device=device),)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        score, after = self._automaton.look_up(states[0], token)
        return score.masked_fill(~emits, 0.0), (torch.where(emits, after, states[0]),)

    def finish(self, states: States) -> Tensor:
        """Return the scores (N, B) of ending, see :class:`Scorer`."""
        return self._automaton.end[states[0]]


class MaskedNeuralScorer(NeuralScorer):
    """What :class:`~asr_core.decoding.scorers.token_scorers.NeuralScorer` computes with an LSTM,
    which is evaluated for all hypotheses, growing or not.
    """

    def __init__(self, lm: RnnLm, scale: float) -> None:
        super().__init__(lm, scale)
        self._step = lm.step

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        score = self.score_of(states[0], token, emits)
        new, after = self._step(token.flatten(), tuple(s.contiguous() for s in to_lm(states[1:])))
        grown = (new.unflatten(0, token.shape), *from_lm(after, token.size(1)))
        masks = (emits.view(*emits.shape, *[1] * (s.dim() - 2)) for s in states)
        return score, tuple(torch.where(mask, n, s) for mask, n, s in zip(masks, grown, states))


class WordAutomatonScorer(Scorer):
    """What :class:`~asr_core.decoding.scorers.word_ngram.WordNgramScorer` computes."""

    def __init__(self, usual: WordNgramScorer, device: torch.device) -> None:
        lm, self._weights, self._device = usual.lm, usual.weights, device
        self._unknown = max([-1, *lm.symbols.values()]) + 1  # stands for all words of no n-gram
        self._lm = ngram_automaton(lm, self._unknown + 1, device)

        def here(x: object) -> Tensor:
            return torch.as_tensor(x).to(device)

        self._opens = here(usual.opens)
        self._hash, self._factor = here(usual.hash.view("int64")), here(usual.factor.view("int64"))
        self._known, order = here(usual.known.view("int64")).sort()
        ids = here(usual.ids)[order]
        self._ids = ids.masked_fill(ids < 0, self._unknown)
        self._ends = torch.zeros(lm.num_states, device=device)
        if lm.eos >= 0:
            states = torch.arange(lm.num_states, device=device)
            self._ends = usual.weights.scale * self._lm.look_up(states, torch.full_like(states, lm.eos))[0]

    def start(self, num: int, beam: int) -> States:
        """Return the states after the start of a sentence, see :class:`Scorer`."""
        state = torch.full((num, beam), self._lm.first, dtype=torch.int64, device=self._device)
        return state, torch.zeros_like(state)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        state, word = states
        opens = self._opens[token] & emits
        score, state = self._close(state, word, opens & (word != 0))
        grown = word.masked_fill(opens, 0) * self._factor[token] + self._hash[token]
        return score, (state, torch.where(emits, grown, word))

    def finish(self, states: States) -> Tensor:
        """Score the last word (N, B) and the end of the sentence, see :class:`Scorer`."""
        state, word = states
        score, state = self._close(state, word, word != 0)
        return score + self._ends[state]

    def _close(self, state: Tensor, word: Tensor, where: Tensor) -> Tuple[Tensor, Tensor]:
        """Score the words (N, B) that end, those ``where`` (N, B); return the states after them."""
        at = torch.searchsorted(self._known, word.contiguous()).clamp_(max=len(self._known) - 1)
        known = self._known[at] == word
        log_prob, after = self._lm.look_up(state, self._ids[at].masked_fill(~known, self._unknown))
        weights = self._weights
        offset = torch.zeros_like(log_prob).masked_fill_(~known, weights.unknown_offset * LN10)
        score = weights.scale * (log_prob + offset) + weights.word_score
        return score.masked_fill(~where, 0.0), torch.where(where, after, state)


class MaskedInternalLm(Scorer):
    """What :class:`~asr_core.decoding.transducer.internal_lm.InternalLmScorer` computes, for all
    hypotheses, growing or not.
    """

    def __init__(self, model: Transducer, scale: float) -> None:
        self._joiner = model.joiner
        self._predictor = device_states(model)
        self._scale = scale

    def start(self, num: int, beam: int) -> States:
        """Return the predictor's states, see :class:`Scorer`."""
        return self._predictor.start(num, beam)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        blank = self._predictor.blank_id
        decoder_out = self._predictor.output(states)  # (N, B, J)
        log_probs = internal_log_probs(self._joiner, decoder_out, blank, LogitOptions())  # (N, B, V)
        log_probs.select(2, blank).fill_(float("-inf"))
        found = log_probs.log_softmax(dim=2).gather(2, token.unsqueeze(2)).squeeze(2)
        return (-self._scale * found).masked_fill(~emits, 0.0), self._predictor.append(states, token, emits)

    def finish(self, states: States) -> Tensor:
        """Return zeros, see :class:`Scorer`."""
        return torch.zeros(states[0].shape[:2], device=states[0].device)


def has_device_form(resources: Resources) -> bool:
    """Return whether :func:`device_scorers` has a form of all that scores tokens: a transformer's
    states grow with its histories.
    """
    return resources.neural_lm is None or isinstance(resources.neural_lm, RnnLm)


def device_scorers(
    opts: SearchOptions,
    resources: Resources,
    vocab_size: int,
    device: torch.device,
    model: Optional[Transducer] = None,
) -> List[Scorer]:
    """Return the scorers that :func:`asr_core.decoding.methods.scoring.scorers_of` makes, in their
    forms for the device.

    Args:
      opts, resources, device, model: see there.
      vocab_size: number of tokens.
    """
    out: List[Scorer] = []
    if isinstance(resources.neural_lm, RnnLm):
        out.append(MaskedNeuralScorer(resources.neural_lm, opts.lm_scale))
    for lm, scale in (
        (resources.token_ngram, opts.ngram_lm_scale),
        (resources.lodr_ngram, opts.lodr_lm_scale),
    ):
        if lm is not None:
            out.append(AutomatonScorer(token_ngram(lm, vocab_size, device).scaled(scale)))
    if resources.word_ngram is not None:
        out.append(WordAutomatonScorer(resources.word_ngram, device))
    if resources.context_graph is not None:
        out.append(AutomatonScorer(phrases(resources.context_graph, vocab_size, device)))
    if model is not None and opts.ilme_scale:
        out.append(MaskedInternalLm(model, opts.ilme_scale))
    return out


def scorers_key(opts: SearchOptions, resources: Resources) -> Hashable:
    """Return what differs where :func:`device_scorers` do."""
    return (
        resources.neural_lm,
        resources.token_ngram,
        resources.lodr_ngram,
        resources.word_ngram,
        resources.context_graph,
        opts.lm_scale,
        opts.ngram_lm_scale,
        opts.lodr_lm_scale,
        opts.ilme_scale,
    )

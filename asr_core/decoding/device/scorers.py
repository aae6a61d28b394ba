"""Scorers as tables on the device, where looking up is one operation."""

import functools
from typing import Hashable, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import LogitOptions
from asr_core.decoding.device.predictor import device_states
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.scorers.context_graph import GREEDY_SHARE, ContextGraph
from asr_core.decoding.states import States
from asr_core.decoding.transducer.internal_lm import internal_log_probs
from asr_core.lm.ngram import NgramLm

_MAX_ENTRIES = 1 << 24  # of a table, which then takes 128 MiB
_AT_ONCE = 1 << 20  # entries made together


class Table(NamedTuple):
    """An automaton with S states over V tokens.

    Attributes:
      score: (S * V,) float32, of each token in each state.
      after: (S * V,) int64, the state that follows.
      end: (S,) float32, score of ending.
      vocab_size: V.
      first: the state before the first token.
    """

    score: Tensor
    after: Tensor
    end: Tensor
    vocab_size: int
    first: int


class TableScorer(Scorer):
    """An automaton's scores times ``scale``; the state (N, B) is that of the automaton."""

    def __init__(self, table: Table, scale: float = 1.0) -> None:
        self._table = table
        self._score = table.score * scale
        self._end = table.end * scale

    def start(self, num: int, beam: int) -> States:
        """Return the state before the first token, see :class:`Scorer`."""
        return (self._table.after.new_full((num, beam), self._table.first),)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        at = states[0] * self._table.vocab_size + token
        score = self._score[at].masked_fill(~emits, 0.0)
        return score, (torch.where(emits, self._table.after[at], states[0]),)

    def finish(self, states: States) -> Tensor:
        """Return the scores (N, B) of ending, see :class:`Scorer`."""
        return self._end[states[0]]


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


def has_device_form(resources: Resources, vocab_size: int) -> bool:
    """Return whether all that scores tokens fits into tables."""
    automata = [resources.token_ngram, resources.lodr_ngram, resources.context_graph]
    sizes = [automaton.num_states * vocab_size for automaton in automata if automaton is not None]
    return (
        resources.neural_lm is None and resources.word_ngram is None and max(sizes, default=0) <= _MAX_ENTRIES
    )


def device_scorers(
    opts: SearchOptions, resources: Resources, device: torch.device, model: Transducer
) -> List[Scorer]:
    """Return the scorers that :func:`asr_core.decoding.methods.scoring.scorers_of` makes, as
    tables.
    """
    vocab_size = int(model.decoder.vocab_size)
    out: List[Scorer] = []
    for lm, scale in (
        (resources.token_ngram, opts.ngram_lm_scale),
        (resources.lodr_ngram, opts.lodr_lm_scale),
    ):
        if lm is not None:
            out.append(TableScorer(ngram_table(lm, vocab_size, device), scale))
    if resources.context_graph is not None:
        out.append(TableScorer(phrase_table(resources.context_graph, vocab_size, device)))
    if opts.ilme_scale:
        out.append(MaskedInternalLm(model, opts.ilme_scale))
    return out


def scorers_key(opts: SearchOptions, resources: Resources) -> Hashable:
    """Return what differs where :func:`device_scorers` do."""
    return (
        resources.token_ngram,
        resources.lodr_ngram,
        resources.context_graph,
        opts.ngram_lm_scale,
        opts.lodr_lm_scale,
        opts.ilme_scale,
    )


@functools.lru_cache(maxsize=4)
def ngram_table(lm: NgramLm, vocab_size: int, device: torch.device) -> Table:
    """Return the log-probabilities of a token n-gram; its ends score nothing."""
    total = lm.num_states * vocab_size
    score, after = np.empty(total, np.float32), np.empty(total, np.int64)
    for begin in range(0, total, _AT_ONCE):
        states, tokens = np.divmod(np.arange(begin, min(total, begin + _AT_ONCE)), vocab_size)
        part = slice(begin, begin + len(states))
        score[part], after[part] = lm.score_batch(states, tokens)
    ends = torch.zeros(lm.num_states, device=device)
    return Table(
        torch.from_numpy(score).to(device),
        torch.from_numpy(after).to(device),
        ends,
        vocab_size,
        lm.initial_state(bos=True),
    )


@functools.lru_cache(maxsize=4)
def phrase_table(graph: ContextGraph, vocab_size: int, device: torch.device) -> Table:
    """Return the bonus of contextual biasing; ends take back that of incomplete phrases."""
    every = torch.arange(graph.num_states * vocab_size, device=device)
    parts = [
        graph.advance(part.div(vocab_size, rounding_mode="floor"), part.remainder(vocab_size))
        for part in every.split(_AT_ONCE)
    ]
    score, after = (torch.cat(tensors) for tensors in zip(*parts))
    return Table(score, after, graph.finish(torch.arange(graph.num_states, device=device)), vocab_size, 0)


@functools.lru_cache(maxsize=4)
def boost_rows(graph: ContextGraph, vocab_size: int, device: torch.device) -> Tensor:
    """Return the bonus (S, V) of each token in each state, for greedy search, see
    :class:`~asr_core.decoding.scorers.context_graph.PhraseBoosts`.
    """
    rows = torch.zeros(graph.num_states, vocab_size)
    for state in range(graph.num_states):
        for token, bonus in zip(*map(Tensor.tolist, graph.continuations(state))):
            rows[state, token] = GREEDY_SHARE * bonus
    return rows.to(device)


def fits_tables(graph: Optional[ContextGraph], vocab_size: int) -> bool:
    """Return whether phrases, if there are any, fit into tables."""
    return graph is None or graph.num_states * vocab_size <= _MAX_ENTRIES

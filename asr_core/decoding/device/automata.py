"""Language models and phrases as automata on the device."""

import functools
from typing import NamedTuple, Optional, Protocol, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.scorers.context_graph import GREEDY_SHARE, ContextGraph
from asr_core.lm.ngram import NO_FINAL, NgramLm
from asr_core.ops.backoff import BackOff, BackOffArcs

_MAX_ENTRIES = 1 << 24  # of a table, which then takes 192 MiB
_MAX_BOOSTS = 1 << 26  # of greedy search, which then take 256 MiB
_AT_ONCE = 1 << 20  # entries made together


class Automaton(Protocol):
    """Scores of tokens, and states that follow each other, without a wait for the device."""

    @property
    def first(self) -> int:
        """The state before the first token."""
        ...

    @property
    def end(self) -> Tensor:
        """Scores (S,) of ending in each state."""
        ...

    def look_up(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Return score and next state of ``token`` (N, B) in ``state`` (N, B)."""
        ...


class Table(NamedTuple):
    """An automaton with S states over V tokens, written out: one look each.

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

    def look_up(self, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
        """Return score and next state, see :class:`Automaton`."""
        at = state * self.vocab_size + token
        return self.score[at], self.after[at]

    def scaled(self, scale: float) -> "Table":
        """Return the automaton with all scores multiplied by ``scale``."""
        return self._replace(score=self.score * scale, end=self.end * scale)


Scaled = Union[Table, BackOff]


def written_out(automaton: BackOff, vocab_size: int) -> Scaled:
    """Return ``automaton`` as a table over ``vocab_size`` tokens, if it is small enough."""
    states = len(automaton.end)
    if states * vocab_size > _MAX_ENTRIES:
        return automaton
    every = torch.arange(states * vocab_size, device=automaton.end.device)
    parts = [
        automaton.look_up(part.div(vocab_size, rounding_mode="floor"), part.remainder(vocab_size))
        for part in every.split(_AT_ONCE)
    ]
    score, after = (torch.cat(tensors) for tensors in zip(*parts))
    return Table(score, after, automaton.end, vocab_size, automaton.first)


@functools.lru_cache(maxsize=4)
def token_ngram(lm: NgramLm, vocab_size: int, device: torch.device) -> Scaled:
    """Return the log-probabilities of a token n-gram; its ends score nothing."""
    return written_out(ngram_automaton(lm, vocab_size, device), vocab_size)


@functools.lru_cache(maxsize=4)
def phrases(graph: ContextGraph, vocab_size: int, device: torch.device) -> Scaled:
    """Return the bonus of contextual biasing; ends take back that of incomplete phrases."""
    return written_out(phrase_automaton(graph, vocab_size, device), vocab_size)


def ngram_automaton(lm: NgramLm, num_tokens: int, device: torch.device) -> BackOff:
    """Return an n-gram over the ids 0 .. ``num_tokens`` - 1; its ends score nothing.

    The end of a sentence is scored like a word where it is asked for.
    """
    a, tokens = lm.automaton, np.arange(num_tokens)
    names, at_root = lm.names_of(tokens), np.full(num_tokens, a.root)
    root_weight, root_dest = lm.score_batch(at_root, tokens)
    source = np.repeat(np.arange(lm.num_states), np.diff(a.begin))
    inner = source != a.root
    source, word, dest, weight = (x[inner] for x in (source, a.word, a.dest, a.weight))
    base = int(max(num_tokens, word.max(initial=0) + 1, names.max(initial=0) + 1)) + 1
    eos = lm.eos
    if 0 <= eos < num_tokens:
        (ends,) = np.nonzero((a.final != NO_FINAL) & (np.arange(lm.num_states) != a.root))
        places = np.searchsorted(source.astype(np.int64) * base + word, ends * base + eos)
        source, word, dest, weight = (
            np.insert(column, places, new)
            for column, new in ((source, ends), (word, eos), (dest, a.root), (weight, a.final[ends]))
        )
    back = np.where(a.backoff_state < 0, a.root, a.backoff_state).astype(np.int64)
    back_weight = np.where(np.arange(lm.num_states) == a.root, 0.0, a.backoff_weight)
    columns = (
        (np.searchsorted(source, np.arange(lm.num_states + 1)), np.int64),
        (word, np.int32),
        (dest, np.int32),
        (weight, np.float32),
        (back, np.int64),
        (back_weight, np.float32),
        (np.where(names < 0, base - 1, names), np.int64),
        (root_weight, np.float32),
        (root_dest, np.int64),
        (np.zeros(lm.num_states), np.float32),
    )
    arcs = BackOffArcs._make(torch.from_numpy(x.astype(kind)).to(device) for x, kind in columns)
    first, depth = lm.initial_state(bos=True), _depth(back, a.root)
    return BackOff(arcs, first=first, root=a.root, num_words=base - 1, depth=depth)


def phrase_automaton(graph: ContextGraph, vocab_size: int, device: torch.device) -> BackOff:
    """Return the bonus of contextual biasing over ``vocab_size`` tokens."""
    p = graph.arcs()
    at_start, known = p.source == 0, p.token < vocab_size
    root_weight = torch.zeros(vocab_size, device=p.bonus.device)
    root_dest = torch.zeros(vocab_size, dtype=torch.int64, device=p.bonus.device)
    first = at_start & known
    root_weight[p.token[first]], root_dest[p.token[first]] = p.bonus[first], p.dest[first]
    inner = ~at_start & known
    states = torch.arange(graph.num_states + 1, device=p.source.device)
    arcs = BackOffArcs(
        begin=torch.searchsorted(p.source[inner].contiguous(), states),
        word=p.token[inner].int(),
        dest=p.dest[inner].int(),
        weight=p.bonus[inner],
        back=p.fail,
        back_weight=p.loss,
        name=torch.arange(vocab_size),
        root_weight=root_weight,
        root_dest=root_dest,
        end=p.ending,
    )
    arcs = BackOffArcs._make(x.to(device) for x in arcs)
    depth = _depth(p.fail.cpu().numpy(), 0)
    return BackOff(arcs, first=0, root=0, num_words=vocab_size, depth=depth)


@functools.lru_cache(maxsize=4)
def boost_rows(graph: ContextGraph, vocab_size: int, device: torch.device) -> Tensor:
    """Return the bonus (S, V) of each token in each state, for greedy search, see
    :class:`~asr_core.decoding.scorers.context_graph.PhraseBoosts`.
    """
    p = graph.arcs()
    rows = torch.zeros(graph.num_states, vocab_size, device=p.step.device)
    known = p.token < vocab_size
    source, token, bonus = p.source[known], p.token[known], GREEDY_SHARE * p.step[known]
    level, state = torch.zeros_like(p.fail), torch.arange(len(p.fail), device=p.fail.device)
    while bool((state != 0).any()):
        level, state = level + (state != 0), p.fail[state]
    for k in range(int(level.max()) + 1):  # a state continues what the state does where it looks next
        (here,) = (level == k).nonzero(as_tuple=True)
        rows[here] = rows[p.fail[here]]
        mine = level[source] == k
        rows[source[mine], token[mine]] = bonus[mine]
    return rows.to(device)


def fits_boosts(graph: Optional[ContextGraph], vocab_size: int) -> bool:
    """Return whether phrases, if there are any, have room in :func:`boost_rows`."""
    return graph is None or graph.num_states * vocab_size <= _MAX_BOOSTS


def _depth(back: np.ndarray, root: int) -> int:
    """Return the most states that are asked before the root; ``back`` is (S,)."""
    depth, state = 0, np.arange(len(back))
    while (state != root).any():
        depth, state = depth + 1, back[state]
    return depth

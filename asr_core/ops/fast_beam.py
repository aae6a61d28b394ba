"""One frame of a beam search over a graph, for many streams, with equal states merged.

This is the search of k2's RnntDecodingStreams (Kang et al. 2023, "Fast and parallel decoding for
transducer", https://arxiv.org/abs/2211.00484). A *state* of a stream is a predictor context
together with a state of the decoding graph; its score is that of the best path that leads to it. On
each frame every state either emits blank, which leaves it where it is, or takes an arc of the
graph, whose label joins the context: the score grows by the log-probability of the label in this
context plus the arc's own. States that meet are merged, and the best predecessor is remembered.
What is worse than the best by more than ``beam`` is dropped, then all but the states of the
``max_contexts`` best contexts, then all but the ``max_states`` best states.

A context is one integer whose digits are its tokens, see
:class:`asr_core.decoding.transducer.context_table.ContextTable`.
"""

from typing import List, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.ops.cpu import dispatch
from asr_core.ops.cpu import fast_beam as kernels


class Arcs(NamedTuple):
    """A decoding graph with G states and A arcs.

    Attributes:
      begin: (G + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``.
      label: (A,) int64, tokens, never blank.
      dest: (A,) int64.
      score: (A,) float32, added to the log-probability of the label.
    """

    begin: Tensor
    label: Tensor
    dest: Tensor
    score: Tensor


class Frontier(NamedTuple):
    """The states of N streams after some frame, (N, S): the first places of a row, sorted by
    context and graph state.

    Attributes:
      code: int64, the context.
      graph_state: int64.
      score: float64, log-probability of the best path; -inf where there is no state.
    """

    code: Tensor
    graph_state: Tensor
    score: Tensor


class Limits(NamedTuple):
    """Limits of a search, and the encoding of contexts as integers.

    Attributes:
      beam: greatest distance from the best score.
      max_contexts, max_states: kept for each stream.
      base: the base of the digits.
      keep: base to the power of the context's size minus one.
      blank: id of blank.
    """

    beam: float
    max_contexts: int
    max_states: int
    base: int
    keep: int
    blank: int

    def append(self, code: Tensor, token: Tensor) -> Tensor:
        """Return the contexts ``code`` (L,) after ``token`` (L,)."""
        return (code.remainder(self.keep)) * self.base + token + 1


class Transitions(NamedTuple):
    """All transitions between the states before a frame and those after it, L of them.

    Attributes:
      row: (L,) int64, the stream.
      source, target: (L,) int64, places of the states.
      arc: (L,) int64, of the graph; -1 for blank.
      score: (L,) float32.
    """

    row: Tensor
    source: Tensor
    target: Tensor
    arc: Tensor
    score: Tensor


class Advanced(NamedTuple):
    """The result of one frame.

    Attributes:
      frontier: the states after it.
      parent: (N, S) int64, the place of each state's best predecessor.
      arc: (N, S) int64, the arc that was taken; -1 for blank.
      transitions: all transitions, in a list of one; empty where they are not wanted.
    """

    frontier: Frontier
    parent: Tensor
    arc: Tensor
    transitions: List[Transitions]


def contexts_of(frontier: Frontier) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the different contexts of each stream.

    Returns:
      Their codes (M,) and streams (M,), both int64, and (N, S) int64, which of them each state has
      (arbitrary where there is no state).
    """
    if dispatch.available() and frontier.code.device.type == "cpu":
        codes, streams, index = kernels.contexts_of(frontier.code.numpy(), frontier.score.numpy())
        return torch.from_numpy(codes), torch.from_numpy(streams), torch.from_numpy(index)
    valid = frontier.score > float("-inf")
    first = valid.clone()
    first[:, 1:] &= frontier.code[:, 1:] != frontier.code[:, :-1]
    return (
        frontier.code[first],
        first.nonzero()[:, 0],
        (first.flatten().cumsum(0) - 1).view_as(first).clamp(min=0),
    )


def advance(
    frontier: Frontier,
    context_index: Tensor,
    log_probs: Tensor,
    arcs: Arcs,
    limits: Limits,
    all_transitions: bool = False,
) -> Advanced:
    """Consume one frame.

    Args:
      frontier: the states before it.
      context_index: (N, S), see :func:`contexts_of`.
      log_probs: (M, V) float32, of the labels in each context.
      arcs: the decoding graph.
      limits: limits of the search.
      all_transitions: whether to return all transitions, for a lattice.
    """
    compiled = dispatch.available() and log_probs.device.type == "cpu"
    one_frame = _advance_compiled if compiled else _advance_plain
    return one_frame(frontier, context_index, log_probs, arcs, limits, all_transitions)


def _advance_compiled(
    frontier: Frontier, index: Tensor, log_probs: Tensor, arcs: Arcs, limits: Limits, all_transitions: bool
) -> Advanced:
    code, graph_state, score, parent, arc, transitions = kernels.advance(
        frontier.code.numpy(),
        frontier.graph_state.numpy(),
        frontier.score.numpy(),
        index.numpy(),
        log_probs.contiguous().numpy(),
        arcs.begin.numpy(),
        arcs.label.numpy(),
        arcs.dest.numpy(),
        arcs.score.numpy(),
        limits.beam,
        limits.max_contexts,
        limits.max_states,
        limits.base,
        limits.keep,
        limits.blank,
        all_transitions,
    )
    after = Frontier(torch.from_numpy(code), torch.from_numpy(graph_state), torch.from_numpy(score))
    listed = [Transitions(*map(torch.from_numpy, transitions))] if all_transitions else []
    return Advanced(after, torch.from_numpy(parent), torch.from_numpy(arc), listed)


class _Steps(NamedTuple):
    """Ways to go on, L of them.

    Attributes:
      row: (L,), the stream.
      source: (L,), place of the state before the frame.
      arc: (L,), of the graph; -1 for blank.
      step: (L,), log-probability of the label plus the arc's score.
      score: (L,), of the path.
    """

    row: Tensor
    source: Tensor
    arc: Tensor
    step: Tensor
    score: Tensor

    def where(self, mask: Tensor) -> "_Steps":
        """Return the steps where ``mask`` (L,) is true."""
        return _Steps(*(x[mask] for x in self))


def _advance_plain(
    frontier: Frontier, index: Tensor, log_probs: Tensor, arcs: Arcs, limits: Limits, all_transitions: bool
) -> Advanced:
    steps = _expand(frontier, index, log_probs, arcs, limits.blank)
    best_of_stream = _best(steps.score, steps.row, len(frontier.code))
    steps = steps.where(steps.score >= best_of_stream[steps.row] - limits.beam)
    code, graph_state = _reached(frontier, steps, arcs, limits)
    states, member = torch.stack([steps.row, code, graph_state]).unique(
        dim=1, return_inverse=True
    )  # (3, number of states), sorted by stream, code, graph state; (L,)
    best = _best(steps.score, member, states.size(1))
    alive = _alive(states, best, limits)
    states, best = states[:, alive], best[alive]
    stays = alive[member]
    steps, member = steps.where(stays), (alive.cumsum(0) - 1)[member][stays]
    row, place = states[0], _rank_in_row(states[0])
    after = Frontier(
        torch.zeros_like(frontier.code),
        torch.zeros_like(frontier.graph_state),
        torch.full_like(frontier.score, float("-inf")),
    )
    after.code[row, place], after.graph_state[row, place], after.score[row, place] = (
        states[1],
        states[2],
        best,
    )
    winner = torch.full_like(best, -1, dtype=torch.int64)
    chosen = (steps.score == best[member]).nonzero().squeeze(1).flip(0)  # of equal ones the first wins
    winner[member[chosen]] = chosen
    parent, taken = torch.zeros_like(after.code), torch.full_like(after.code, -1)
    parent[row, place], taken[row, place] = steps.source[winner], steps.arc[winner]
    listed = []
    if all_transitions:
        listed = [Transitions(steps.row, steps.source, place[member], steps.arc, steps.step)]
    return Advanced(after, parent, taken, listed)


def _reached(frontier: Frontier, steps: _Steps, arcs: Arcs, limits: Limits) -> Tuple[Tensor, Tensor]:
    """Return the context and the graph state that each step leads to, both (L,)."""
    label = arcs.label[steps.arc.clamp(min=0)] if len(arcs.label) else steps.arc
    dest = arcs.dest[steps.arc.clamp(min=0)] if len(arcs.dest) else steps.arc
    code, graph_state = frontier.code[steps.row, steps.source], frontier.graph_state[steps.row, steps.source]
    is_blank = steps.arc < 0
    return (
        torch.where(is_blank, code, limits.append(code, label)),
        torch.where(is_blank, graph_state, dest),
    )


def _alive(states: Tensor, best: Tensor, limits: Limits) -> Tensor:
    """Return which states survive the limits on contexts and states.

    Args:
      states: (3, M): stream, context and graph state of each, ascending.
      best: (M,), their scores.
      limits: limits of the search.

    Returns:
      (M,) bool.
    """
    contexts, context = states[:2].unique_consecutive(dim=1, return_inverse=True)
    kept_contexts = _leaders(_best(best, context, contexts.size(1)), contexts[0], limits.max_contexts)
    alive = kept_contexts[context]
    alive[alive.clone()] = _leaders(best[alive], states[0, alive], limits.max_states)
    return alive


def _expand(frontier: Frontier, context_index: Tensor, log_probs: Tensor, arcs: Arcs, blank: int) -> _Steps:
    """Return all continuations of the states (N, S) of a frontier."""
    row, source = (frontier.score > float("-inf")).nonzero(as_tuple=True)
    graph_state, context = frontier.graph_state[row, source], context_index[row, source]
    first = arcs.begin[graph_state]
    count = 1 + arcs.begin[graph_state + 1] - first  # blank, and the arcs
    state = torch.arange(len(row), device=row.device).repeat_interleave(count)  # (L,)
    arc = torch.arange(len(state), device=row.device) - (count.cumsum(0) - count)[state] - 1
    arc = torch.where(arc < 0, arc, arc + first[state])  # -1 first, then the graph's
    step = log_probs[context[state], blank]
    if len(arcs.label):
        label = torch.where(arc < 0, blank, arcs.label[arc.clamp(min=0)])
        added = torch.where(arc < 0, 0.0, arcs.score[arc.clamp(min=0)])
        step = log_probs[context[state], label] + added
    row, source = row[state], source[state]
    return _Steps(row, source, arc, step, frontier.score[row, source] + step)


def _best(score: Tensor, group: Tensor, num: int) -> Tensor:
    """Return the highest score (num,) of each group; ``score`` and ``group`` are (L,)."""
    return score.new_full((num,), float("-inf")).scatter_reduce_(0, group, score, "amax")


def _rank_in_row(row: Tensor) -> Tensor:
    """Return how many elements before each are of the same row; ``row`` (L,) ascends."""
    index = torch.arange(len(row), device=row.device)
    return index - torch.searchsorted(row.contiguous(), row.contiguous())


def _leaders(score: Tensor, row: Tensor, most: int) -> Tensor:
    """Return which elements (L,) are among the ``most`` best of their row; ``row`` (L,) ascends."""
    order = score.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    out = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    out[order] = _rank_in_row(row[order]) < most
    return out


def start(code: Tensor, graph_state: int, max_states: int) -> Frontier:
    """Return one state for each of N streams: contexts ``code`` (N,), at ``graph_state``."""
    places = (len(code), max_states)
    score = torch.full(places, float("-inf"), dtype=torch.float64, device=code.device)
    score[:, 0] = 0
    codes = torch.zeros(places, dtype=torch.int64, device=code.device)
    codes[:, 0] = code
    return Frontier(codes, torch.full_like(codes, graph_state), score)


def trivial_arcs(vocab_size: int, blank: int, device: torch.device) -> Arcs:
    """Return the graph that accepts everything: one state with an arc for each token but blank."""
    label = torch.tensor([i for i in range(vocab_size) if i != blank], dtype=torch.int64, device=device)
    begin = torch.tensor([0, len(label)], dtype=torch.int64, device=device)
    return Arcs(begin, label, torch.zeros_like(label), torch.zeros(len(label), device=device))


def as_arcs(
    begin: np.ndarray, label: np.ndarray, dest: np.ndarray, score: np.ndarray, device: torch.device
) -> Arcs:
    """Return the arrays of a graph, (G + 1,) and three (A,), as :class:`Arcs` on ``device``."""

    def on_device(x: np.ndarray, dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, dtype=dtype)).to(device)

    return Arcs(
        begin=on_device(begin, np.int64),
        label=on_device(label, np.int64),
        dest=on_device(dest, np.int64),
        score=on_device(score, np.float32),
    )

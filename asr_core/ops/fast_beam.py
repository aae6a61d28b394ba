r"""One frame of a beam search over a graph, for many streams, with equal states merged (the search of k2's RnntDecodingStreams).

A *state* of a stream is a predictor context together with a state of the decoding graph; its score is that of the best path that leads
to it. On each frame every state either emits blank, which leaves it where it is, or takes an arc of the graph, whose label joins the
context: the score grows by the log-probability of the label in this context plus the arc's own. States that meet are merged, the best
predecessor is remembered. What is worse than the best by more than ``beam`` is dropped, then all but the states of the
``max_contexts`` best contexts, then all but the ``max_states`` best states.

A context is one integer whose digits are its tokens, see :class:`asr_core.decoding.transducer.context_table.ContextTable`.
"""

from typing import List, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.ops.cpu import dispatch


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
    """The states of N streams after some frame, (N, S): the first places of a row, sorted by context and graph state.

    Attributes:
      code: int64, the context.
      graph_state: int64.
      score: float64, log-probability of the best path; -inf where there is no state.
    """

    code: Tensor
    graph_state: Tensor
    score: Tensor


class Limits(NamedTuple):
    """What is kept, and how contexts are written as integers.

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
        """The contexts ``code`` after ``token``."""
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


def contexts_of(frontier: Frontier) -> Tuple[Tensor, Tensor, Tensor]:
    """The different contexts of each stream.

    Returns:
      their codes (M,) and streams (M,), both int64, and (N, S) int64, which of them each state has (anything where there is none).
    """
    if dispatch.available() and frontier.code.device.type == "cpu":
        from asr_core.ops.cpu import fast_beam as kernels

        return tuple(
            map(torch.from_numpy, kernels.contexts_of(frontier.code.numpy(), frontier.score.numpy()))
        )  # type: ignore[return-value]
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
) -> Tuple[Frontier, Tensor, Tensor, List[Transitions]]:
    """Consume one frame.

    Args:
      frontier: the states before it.
      context_index: (N, S), see :func:`contexts_of`.
      log_probs: (M, V) float32, of the labels in each context.
      arcs: the decoding graph.
      limits: what is kept.
      all_transitions: whether all transitions are wanted, for a lattice.

    Returns:
      the states after it; for each the place (N, S) of its best predecessor and the arc (N, S) that was taken, -1 for blank; and
      the transitions, in a list of one, if they are wanted.
    """
    if dispatch.available() and log_probs.device.type == "cpu":
        return _advance_compiled(frontier, context_index, log_probs, arcs, limits, all_transitions)
    return _advance_plain(frontier, context_index, log_probs, arcs, limits, all_transitions)


def _advance_compiled(
    frontier: Frontier,
    context_index: Tensor,
    log_probs: Tensor,
    arcs: Arcs,
    limits: Limits,
    all_transitions: bool,
) -> Tuple[Frontier, Tensor, Tensor, List[Transitions]]:
    from asr_core.ops.cpu import fast_beam as kernels

    arrays = [x.numpy() for x in (*frontier, context_index, log_probs.contiguous(), *arcs)]
    *places, transitions = kernels.advance(*arrays, *limits, all_transitions)
    code, graph_state, score, parent, arc = map(torch.from_numpy, places)
    listed = [Transitions(*map(torch.from_numpy, transitions))] if all_transitions else []
    return Frontier(code, graph_state, score), parent, arc, listed


def _advance_plain(
    frontier: Frontier,
    context_index: Tensor,
    log_probs: Tensor,
    arcs: Arcs,
    limits: Limits,
    all_transitions: bool,
) -> Tuple[Frontier, Tensor, Tensor, List[Transitions]]:
    row, source, arc, step = _expand(frontier, context_index, log_probs, arcs, limits.blank)
    score = frontier.score[row, source] + step
    num = len(frontier.code)
    near = score >= _best(score, row, num)[row] - limits.beam
    row, source, arc, step, score = (x[near] for x in (row, source, arc, step, score))
    label = arcs.label[arc.clamp(min=0)] if len(arcs.label) else arc
    code = torch.where(arc < 0, frontier.code[row, source], limits.append(frontier.code[row, source], label))
    dest = arcs.dest[arc.clamp(min=0)] if len(arcs.dest) else arc
    graph_state = torch.where(arc < 0, frontier.graph_state[row, source], dest)
    states, member = torch.stack([row, code, graph_state]).unique(
        dim=1, return_inverse=True
    )  # sorted by row, code, graph state
    best = _best(score, member, states.size(1))
    contexts, context = states[:2].unique_consecutive(dim=1, return_inverse=True)
    kept_contexts = _leaders(_best(best, context, contexts.size(1)), contexts[0], limits.max_contexts)
    alive = kept_contexts[context]
    alive[alive.clone()] = _leaders(best[alive], states[0, alive], limits.max_states)
    states, best = states[:, alive], best[alive]
    new_index = alive.cumsum(0) - 1
    stays = alive[member]
    row, source, arc, step, score, member = (
        x[stays] for x in (row, source, arc, step, score, new_index[member])
    )
    place = _rank_in_row(states[0])
    out = Frontier(*(x.clone() for x in frontier))
    out = Frontier(
        torch.zeros_like(out.code),
        torch.zeros_like(out.graph_state),
        torch.full_like(out.score, float("-inf")),
    )
    for tensor, values in zip(out, (states[1], states[2], best)):
        tensor[states[0], place] = values
    winner = torch.full_like(best, -1, dtype=torch.int64)
    chosen = (score == best[member]).nonzero().squeeze(1).flip(0)  # of equal ones the first wins
    winner[member[chosen]] = chosen
    parent, taken = torch.zeros_like(out.code), torch.full_like(out.code, -1)
    parent[states[0], place], taken[states[0], place] = source[winner], arc[winner]
    listed = [Transitions(row, source, place[member], arc, step)] if all_transitions else []
    return out, parent, taken, listed


def _expand(
    frontier: Frontier, context_index: Tensor, log_probs: Tensor, arcs: Arcs, blank: int
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """All ways to go on: stream, place, arc (-1 for blank) and score of each."""
    row, source = (frontier.score > float("-inf")).nonzero(as_tuple=True)
    graph_state, context = frontier.graph_state[row, source], context_index[row, source]
    count = 1 + arcs.begin[graph_state + 1] - arcs.begin[graph_state]
    state = torch.arange(len(row), device=row.device).repeat_interleave(count)
    arc = (
        torch.arange(len(state), device=row.device) - (count.cumsum(0) - count)[state] - 1
    )  # -1 first, then the graph's
    arc = torch.where(arc < 0, arc, arc + arcs.begin[graph_state][state])
    if len(arcs.label):
        label = torch.where(arc < 0, blank, arcs.label[arc.clamp(min=0)])
        added = torch.where(arc < 0, 0.0, arcs.score[arc.clamp(min=0)])
        return row[state], source[state], arc, log_probs[context[state], label] + added
    return row[state], source[state], arc, log_probs[context[state], blank]


def _best(score: Tensor, group: Tensor, num: int) -> Tensor:
    """The highest score of each of ``num`` groups."""
    return score.new_full((num,), float("-inf")).scatter_reduce_(0, group, score, "amax")


def _rank_in_row(row: Tensor) -> Tensor:
    """How many elements before each are of the same row; ``row`` ascends."""
    index = torch.arange(len(row), device=row.device)
    return index - torch.searchsorted(row.contiguous(), row.contiguous())


def _leaders(score: Tensor, row: Tensor, most: int) -> Tensor:
    """Which elements are among the ``most`` best of their row; ``row`` ascends."""
    order = score.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    out = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    out[order] = _rank_in_row(row[order]) < most
    return out


def start(code: Tensor, graph_state: int, max_states: int) -> Frontier:
    """One state for each of N streams: contexts ``code`` (N,), at ``graph_state``."""
    places = (len(code), max_states)
    score = torch.full(places, float("-inf"), dtype=torch.float64, device=code.device)
    score[:, 0] = 0
    codes = torch.zeros(places, dtype=torch.int64, device=code.device)
    codes[:, 0] = code
    return Frontier(codes, torch.full_like(codes, graph_state), score)


def trivial_arcs(vocab_size: int, blank: int, device: torch.device) -> Arcs:
    """The graph that accepts everything: one state with an arc for each token but blank."""
    label = torch.tensor([i for i in range(vocab_size) if i != blank], dtype=torch.int64, device=device)
    begin = torch.tensor([0, len(label)], dtype=torch.int64, device=device)
    return Arcs(begin, label, torch.zeros_like(label), torch.zeros(len(label), device=device))


def as_arcs(
    begin: np.ndarray, label: np.ndarray, dest: np.ndarray, score: np.ndarray, device: torch.device
) -> Arcs:
    """The arrays of a graph as :class:`Arcs` on ``device``."""
    integers = (
        torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(device) for x in (begin, label, dest)
    )
    return Arcs(*integers, torch.from_numpy(np.ascontiguousarray(score, dtype=np.float32)).to(device))

"""Fast beam search with a graph on the device.

The frames of :mod:`asr_core.ops.fast_beam` with fixed shapes: there is room for a number of arcs
that leave the states of all utterances, and for a number of moves of each utterance that lead to
the best contexts. A search that needs more room says so when it has ended, and is repeated.
"""

import functools
from typing import List, NamedTuple, Optional, Tuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from asr_core.decoding.beam_options import FastBeamOptions
from asr_core.decoding.device.beam import Contexts
from asr_core.decoding.device.frame_loop import RankedLoop, Room, Searched, room_for
from asr_core.decoding.device.replay import kept
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.states import initial_scores
from asr_core.decoding.transducer.fast_beam import hypothesis_of
from asr_core.decoding.transducer.fast_beam_lattice import lattices_of
from asr_core.decoding.transducer.frame_synchronous import FrameSynchronousSearch, to_paths
from asr_core.ops.fast_beam import Arcs, Transitions, as_arcs

_NEVER = float("-inf")
_NO_ARC = 0  # the symbol of blank; others are arcs plus one
_MOST_ARCS = 1 << 24  # of all utterances; a search takes some 200 bytes for each
_LARGEST = (1 << 63) - 1


class Capacity:
    """The room of searches of a graph, which grows when it was too little.

    Attributes:
      arcs: that leave the states of an utterance, on average.
      moves: that lead to the best contexts of an utterance.
    """

    def __init__(self) -> None:
        self.arcs, self.moves = 1024, 256


_capacities: "WeakKeyDictionary[Fsa, Capacity]" = WeakKeyDictionary()


@torch.inference_mode()
def fast_beam_search_with_graph(
    model: Transducer, encoder_out: Tensor, encoder_out_lens: Tensor, opts: FastBeamOptions, graph: Fsa
) -> Optional[List[Hypothesis]]:
    """Search as :func:`~asr_core.decoding.transducer.fast_beam.fast_beam_search` does with a graph.

    Args:
      model: eager or TorchScript, with a stateless predictor whose contexts have numbers.
      encoder_out, encoder_out_lens, opts, graph: see there.

    Returns:
      None if a search would take too much memory.
    """
    search, x = _search_of(model, encoder_out, opts, graph, keep_moves=False)
    found = search(x, encoder_out_lens)
    if found is None:
        return None
    return [
        hypothesis_of(graph, [symbol - 1 for symbol in arcs], frames, score)
        for ((arcs, frames),), (score,) in zip(to_paths(found.symbols, _NO_ARC), found.scores.tolist())
    ]


@torch.inference_mode()
def lattices_on_device(
    model: Transducer, encoder_out: Tensor, encoder_out_lens: Tensor, opts: FastBeamOptions, graph: Fsa
) -> Optional[List[Lattice]]:
    """Return the lattice of each utterance; arguments as of :func:`fast_beam_search_with_graph`.

    All moves come to the host, once per batch.
    """
    search, x = _search_of(model, encoder_out, opts, graph, keep_moves=True)
    if search(x, encoder_out_lens) is None:
        return None
    loop, num, size = search.loop, len(x), opts.max_states
    time = torch.arange(x.size(1), device=x.device)
    going = time.unsqueeze(1) < encoder_out_lens.to(x.device)  # (T, N)
    places, arcs, steps = loop.notes  # (T, N, P)
    loop.notes = []  # they are large, and the loop is kept
    there = (places >= 0) & going.unsqueeze(2)
    frame, row, _ = (index.cpu() for index in there.nonzero(as_tuple=True))
    both, arc, step = (note[there].cpu() for note in (places, arcs, steps))
    source, target = both.div(size, rounding_mode="floor"), both.remainder(size)
    moves = Transitions(row, source.long(), target.long(), arc.long(), step)
    ends = (search.endings(loop.state)[:num]).cpu().numpy()
    return lattices_of(ends, frame.numpy(), moves, encoder_out_lens.tolist())


def _search_of(
    model: Transducer, encoder_out: Tensor, opts: FastBeamOptions, graph: Fsa, *, keep_moves: bool
) -> Tuple["GraphSearch", Tensor]:
    """Return the kept search, and the projected frames (N, T, J)."""
    graph.check_labels(int(model.decoder.vocab_size), int(model.decoder.blank_id))
    x = model.joiner.encoder_proj(encoder_out)
    room, capacity = room_for(x), _capacities.setdefault(graph, Capacity())

    def make() -> GraphSearch:
        beam = GraphBeam(model, opts, graph, capacity, keep_moves=keep_moves)
        return GraphSearch(beam, room, graph.num_arcs + 1)

    key = ("graph beam", graph, opts, keep_moves, room.rows, room.frames, x.dtype)
    return kept(model, key, make), x


class GraphState(NamedTuple):
    """Live states of N utterances, (N, S): the first places, by context and graph state.

    Attributes:
      score: float64, log-probability of the best path to each; -inf where there is none.
      code: int64, the context.
      graph_state: int64.
      short: (N, 2) whether there was too little room for arcs, and for moves.
      moves: the moves of the last frame where lattices are wanted, (N, P): place before times S
        plus place after, -1 where there is none; arcs; scores.
    """

    score: Tensor
    code: Tensor
    graph_state: Tensor
    short: Tensor
    moves: Tuple[Tensor, ...] = ()


class _Ways(NamedTuple):
    """Ways to go on, (L,), those of an utterance one after another.

    Attributes:
      row, source: the utterance, and the place of the state.
      arc: of the graph; -1 for blank.
      label: the token.
      entry: the place of (context, token) among those of all utterances.
      step: float32, score of the way itself.
      score: of the path; -inf where there is no way.
      up_to: (N,), how many ways there are up to the end of each utterance.
    """

    row: Tensor
    source: Tensor
    arc: Tensor
    label: Tensor
    entry: Tensor
    step: Tensor
    score: Tensor
    up_to: Tensor


class GraphBeam(FrameSynchronousSearch[GraphState]):
    """Fast beam search with a graph, see :class:`~asr_core.ops.fast_beam.Frontier`.

    Args:
      model: with a stateless predictor whose contexts have numbers.
      opts: beam and limits.
      graph: over tokens.
      capacity: the room.
      keep_moves: whether lattices are wanted.

    Attributes:
      capacity: as given; it may grow between searches.
      num_states: S, states kept.
    """

    def __init__(
        self,
        model: Transducer,
        opts: FastBeamOptions,
        graph: Fsa,
        capacity: Capacity,
        *,
        keep_moves: bool = False,
    ) -> None:
        super().__init__(model.joiner, _NO_ARC)
        # there are no more contexts than states before a frame; after it, at most as many are kept
        self._contexts = Contexts(model, opts, opts.max_contexts)
        self._opts, self._start = opts, graph.start
        self.capacity, self.num_states = capacity, opts.max_states
        self._keep_moves = keep_moves
        self._arcs, self._final = _on_device(graph, self._contexts.predictor.device)

    def start(self, num: int) -> GraphState:
        """Return the state of ``num`` utterances before the first frame."""
        size, predictor = self.num_states, self._contexts.predictor
        score = initial_scores(num, size, predictor.device).double()
        (code,) = predictor.start(num, size)
        short = torch.zeros(num, 2, dtype=torch.bool, device=predictor.device)
        moves: Tuple[Tensor, ...] = ()
        if self._keep_moves:
            none = torch.full((num, self.capacity.moves), -1, dtype=torch.int32, device=predictor.device)
            moves = (none, none, torch.zeros_like(none, dtype=torch.float32))
        return GraphState(score, code, torch.full_like(code, self._start), short, moves)

    def final_scores(self, state: GraphState) -> Tensor:
        """Return the scores (N, S) of the best paths that end in each state."""
        return state.score + self.endings(state)

    def endings(self, state: GraphState) -> Tensor:
        """Return the scores (N, S) of ending: free everywhere where no state may end."""
        here = state.score > _NEVER
        final = self._final[state.graph_state].double().masked_fill_(~here, _NEVER)
        ends = final.amax(dim=1, keepdim=True) > _NEVER
        return torch.where(ends, final, torch.zeros_like(final).masked_fill_(~here, _NEVER))

    def step(self, frame: Tensor, state: GraphState) -> Tuple[GraphState, Tensor, Tensor]:
        """Consume one projected frame (N, J), see :class:`FrameSynchronousSearch`."""
        num, vocab_size = len(frame), self._contexts.predictor.vocab_size
        size = self._contexts.size
        code, index = _contexts_of(state, size)
        log_probs = self._contexts.log_probs(frame, code).float()  # (N, C, V)
        ways, short = self._expand(state, index, log_probs)
        table = ways.score.new_full((num * size * vocab_size,), _NEVER)
        table.scatter_reduce_(0, ways.entry, ways.score, "amax")
        best, _, _, after = self._contexts.best(table.view(num, size, vocab_size), code)
        cut = best[:, 0] - self._opts.beam  # (N,)
        after = after.masked_fill(best == _NEVER, _LARGEST).sort(dim=1).values  # (N, C), by code
        lead = self._leading_to(code, after)[ways.entry]  # (L,), which of these a way leads to
        chosen = (lead < size) & (ways.score >= cut[ways.row]) & (ways.score > _NEVER)
        moves, too_many = _compact(ways, chosen, self.capacity.moves)  # (N, P)
        short = state.short | torch.cat([short.expand(num, 1), too_many], dim=1)
        return self._merge(state, ways, lead, after, moves, short)

    def _expand(self, state: GraphState, index: Tensor, log_probs: Tensor) -> Tuple[_Ways, Tensor]:
        """Return all continuations of the states, and whether there was too little room.

        Args:
          state: before the frame.
          index: (N, S), the context of each state.
          log_probs: (N, C, V), of tokens in contexts.
        """
        arcs, (num, places), blank = self._arcs, state.score.shape, self._contexts.blank
        number, length = log_probs.size(2), num * self.capacity.arcs
        first = arcs.begin[state.graph_state]
        count = (arcs.begin[state.graph_state + 1] - first + 1).masked_fill_(state.score == _NEVER, 0)
        ends = count.flatten().cumsum(0)  # (N * S,)
        way = torch.arange(length, device=ends.device)
        slot = torch.searchsorted(ends, way, right=True).clamp_(max=len(ends) - 1)
        within = way - (ends - count.flatten())[slot]
        stays, there = within == 0, way < ends[-1:]
        arc = (first.flatten()[slot] + within - 1).clamp_(min=0, max=len(arcs.label) - 1)
        label = arcs.label[arc].masked_fill(stays, blank)
        row = slot.div(places, rounding_mode="floor")
        entry = (row * log_probs.size(1) + index.flatten()[slot]) * number + label
        step = log_probs.flatten()[entry] + arcs.score[arc].masked_fill(stays, 0.0)
        score = (state.score.flatten()[slot] + step).masked_fill_(~there, _NEVER)
        up_to = ends.view(num, places)[:, -1]
        arc, source = arc.masked_fill(stays, -1), slot.remainder(places)
        return _Ways(row, source, arc, label, entry, step, score, up_to), (ends[-1:] > length).unsqueeze(1)

    def _leading_to(self, code: Tensor, after: Tensor) -> Tensor:
        """Return which of the contexts ``after`` (N, C) a token leads to in the contexts ``code``
        (N, C), for all of them one after another, (N * C * V,); C where it is none.
        """
        contexts, blank = self._contexts.predictor.contexts, self._contexts.blank
        (num, size), vocab_size = code.shape, contexts.vocab_size
        table = torch.full((num, size * vocab_size + 1), size, device=code.device)
        last = after.remainder(contexts.base).sub_(1).unsqueeze(1)  # (N, 1, C), their last tokens
        before = after.div(contexts.base, rounding_mode="floor").unsqueeze(1)
        grows = (code.remainder(contexts.keep).unsqueeze(2) == before) & (last != blank) & (last >= 0)
        here = torch.arange(size, device=code.device)
        entry = (here.view(1, -1, 1) * vocab_size + last).masked_fill(~grows, size * vocab_size)
        stays = code.unsqueeze(2) == after.unsqueeze(1)
        at_blank = (here.view(1, -1, 1) * vocab_size + blank).expand_as(stays)
        at_blank = at_blank.masked_fill(~stays, size * vocab_size)
        place = here.expand_as(stays).flatten(1)
        table.scatter_(1, entry.flatten(1), place)
        return table.scatter_(1, at_blank.flatten(1), place)[:, :-1].flatten()

    def _merge(
        self, state: GraphState, ways: _Ways, lead: Tensor, after: Tensor, moves: Tensor, short: Tensor
    ) -> Tuple[GraphState, Tensor, Tensor]:
        """Merge the moves (N, P) that lead to the same state, and keep the best states."""
        num, room = moves.shape
        valid = moves < len(ways.row)
        at = moves.masked_fill(~valid, 0)
        arc, source = ways.arc[at], ways.source[at]
        stayed = state.graph_state.gather(1, source)
        dest = torch.where(arc < 0, stayed, self._arcs.dest[arc.clamp(min=0)])
        states = len(self._arcs.begin)
        group = (lead[at] * states + dest).masked_fill_(~valid, _LARGEST)
        group, order = group.sort(dim=1, stable=True)
        score = ways.score[at].masked_fill_(~valid, _NEVER).gather(1, order)
        begins = torch.ones_like(valid)
        begins[:, 1:] = group[:, 1:] != group[:, :-1]
        member = begins.cumsum(dim=1) - 1  # (N, P), invalid moves are the last member of all
        best = torch.full_like(score, _NEVER).scatter_reduce_(1, member, score, "amax")  # (N, P)
        first = torch.arange(room, device=moves.device).expand(num, room)
        first = first.masked_fill(score != best.gather(1, member), room - 1)
        winner = torch.full_like(first, room - 1).scatter_reduce_(1, member, first, "amin")
        places = min(self.num_states, room)
        value, chosen = best.sort(dim=1, descending=True, stable=True)
        chosen = chosen[:, :places].masked_fill(value[:, :places] == _NEVER, room).sort(dim=1).values
        lives = chosen < room
        chosen = chosen.clamp(max=room - 1)
        move = order.gather(1, winner.gather(1, chosen))  # (N, places) among the moves

        def taken(x: Tensor, like: Tensor, empty: float) -> Tensor:
            out = like.new_full(like.shape, empty)
            out[:, :places] = x.masked_fill(~lives, empty)
            return out

        kept_moves: Tuple[Tensor, ...] = ()
        if self._keep_moves:
            place = torch.full_like(member, -1)
            here = torch.arange(places, device=place.device).expand(num, places)
            place = torch.cat([place, place[:, :1]], dim=1)  # one more, for empty places
            place.scatter_(1, chosen.masked_fill(~lives, room), here)
            place = place.gather(1, member)
            way = at.gather(1, order)
            both = (ways.source[way] * self.num_states + place).masked_fill_(
                (place < 0) | (score == _NEVER), -1
            )
            kept_moves = (both.int(), ways.arc[way].int(), ways.step[way])
        code = after.gather(1, lead[at].gather(1, move).clamp_(max=after.size(1) - 1))
        new = GraphState(
            taken(best.gather(1, chosen), state.score, _NEVER),
            taken(code, state.code, 0),
            taken(dest.gather(1, move), state.graph_state, 0),
            short,
            kept_moves,
        )
        parent = taken(source.gather(1, move), state.code, 0)
        return new, parent, taken(arc.gather(1, move) + 1, state.code, _NO_ARC)


class GraphSearch:
    """The search of up to ``room.rows`` utterances, made again when it needs more room.

    Args:
      search: takes the steps.
      room: see :class:`~asr_core.decoding.device.frame_loop.Room`.
      num_symbols: arcs of the graph, and blank.

    Attributes:
      loop: the search of the last batch.
      endings: see :meth:`GraphBeam.endings`.
    """

    loop: RankedLoop[GraphState]

    def __init__(self, search: GraphBeam, room: Room, num_symbols: int) -> None:
        self._search, self._room, self._num_symbols = search, room, num_symbols
        self._made_for = (0, 0)
        self.endings = search.endings

    def __call__(self, x: Tensor, lens: Tensor) -> Optional[Searched]:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,); None: there is not
        enough memory.
        """
        capacity, room = self._search.capacity, self._room
        places = self._search.num_states
        numbers_fit = places * max(places, self._num_symbols) < 1 << 31
        while numbers_fit and room.rows * capacity.arcs <= _MOST_ARCS:
            size = (capacity.arcs, capacity.moves)
            if self._made_for != size:
                start = self._search.start(room.rows)
                self.loop = RankedLoop(
                    self._search, _best_first, room, start, self._num_symbols, lambda state: state.moves
                )
                self._made_for = size
            found = self.loop(x, lens, 1)
            arcs, moves = self.loop.state.short.any(dim=0).tolist()
            if not (arcs or moves):
                return found
            capacity.arcs, capacity.moves = capacity.arcs << arcs, capacity.moves << moves
        return None


def _best_first(final: Tensor, state: GraphState) -> Tensor:
    return final.argsort(dim=1, descending=True, stable=True)


def _contexts_of(state: GraphState, size: int) -> Tuple[Tensor, Tensor]:
    """Return the different contexts (N, C) of each utterance, and which of them each state has,
    (N, S); 0 in empty places.
    """
    lives = state.score > _NEVER
    begins = lives.clone()
    begins[:, 1:] &= state.code[:, 1:] != state.code[:, :-1]
    index = (begins.cumsum(dim=1) - 1).clamp_(min=0)
    place = index.masked_fill(~begins, size)
    code = state.code.new_zeros(len(state.code), size + 1).scatter_(1, place, state.code)[:, :size]
    return code, index


def _compact(ways: _Ways, chosen: Tensor, room: int) -> Tuple[Tensor, Tensor]:
    """Return the ways ``chosen`` (L,) of each utterance, (N, P), L in empty places, and whether
    there are more, (N, 1).
    """
    so_far, length = chosen.cumsum(0), len(chosen)
    ends = so_far[(ways.up_to - 1).clamp(min=0, max=length - 1)]  # (N,), of each utterance
    ends = ends.masked_fill(ways.up_to == 0, 0)
    before = torch.cat([ends.new_zeros(1), ends[:-1]])
    rank = so_far - 1 - before[ways.row]
    place = (ways.row * room + rank).masked_fill_(~chosen | (rank >= room), len(ends) * room)
    out = torch.full((len(ends) * room + 1,), length, device=place.device)
    out.scatter_(0, place, torch.arange(length, device=place.device))
    return out[:-1].view(len(ends), room), (ends - before > room).unsqueeze(1)


@functools.lru_cache(maxsize=2)
def _on_device(graph: Fsa, device: torch.device) -> Tuple[Arcs, Tensor]:
    """Return the arcs of a graph, one that leaves no state if it has none, and the scores (G,) of
    ending in its states; all its searches share them.
    """
    arcs = as_arcs(graph.begin, graph.label, graph.dest, graph.score, device)
    if not len(arcs.label):
        arcs = arcs._replace(
            label=arcs.label.new_zeros(1), dest=arcs.dest.new_zeros(1), score=arcs.score.new_zeros(1)
        )
    return arcs, torch.from_numpy(graph.final).to(device)

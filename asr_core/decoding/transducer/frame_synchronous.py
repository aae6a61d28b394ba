"""Searches that take one step per frame: their loop, back pointers and streams."""

from typing import Generic, List, NamedTuple, Protocol, Sequence, Tuple, TypeVar

import torch
from torch import Tensor

from asr_core.decoding.protocol import TransducerJoiner
from asr_core.decoding.transducer.packed_frames import pack_frames

Path = Tuple[List[int], List[int]]  # symbols without blanks (tokens, or arcs of a graph), and their frames


class BatchState(Protocol):
    """The live hypotheses of N utterances, B places for each."""

    @property
    def score(self) -> Tensor:
        """Log-probabilities (N, B), -inf where a place is empty."""
        ...


StateT = TypeVar("StateT", bound=BatchState)


class Trace(NamedTuple):
    """Back pointers of each frame t, all (N_t, B), where N_t never grows.

    Attributes:
      parents: the place that the hypothesis at each place came from.
      symbols: the symbol that it got at this frame.
    """

    parents: List[Tensor]
    symbols: List[Tensor]


class FrameSynchronousSearch(Generic[StateT]):
    """A beam search whose hypotheses get one symbol per frame, batched over utterances.

    Args:
      joiner: projects the encoder output.
      blank: the symbol that stands for blank in a :class:`Trace`.
    """

    def __init__(self, joiner: TransducerJoiner, blank: int) -> None:
        self.joiner = joiner
        self.blank = blank

    def step(self, frame: Tensor, state: StateT) -> Tuple[StateT, Tensor, Tensor]:
        """Consume one projected frame (N, J).

        Returns:
          The new state; for each of its places the parent's place and the symbol, both (N, B).
        """
        raise NotImplementedError

    def rows(self, state: StateT, start: int, end: int) -> StateT:
        """Return the hypotheses of utterances start..end-1."""
        raise NotImplementedError

    def join(self, parts: Sequence[StateT]) -> StateT:
        """Return the hypotheses of several groups of utterances as one state."""
        raise NotImplementedError

    def final_scores(self, state: StateT) -> Tensor:
        """Return the scores (N, B) of the hypotheses if they end here."""
        raise NotImplementedError

    def run(self, frames: List[Tensor], state: StateT) -> Tuple[StateT, Trace]:
        """Search the frames of some utterances.

        Args:
          frames: frames from :func:`pack_frames`, (N_t, C) for each frame t, not projected.
          state: the hypotheses before the first frame, utterances in the same order.

        Returns:
          The hypotheses after the last frame of each utterance, and the back pointers.
        """
        trace = Trace([], [])
        done: List[StateT] = []
        if frames:
            frames = list(self.joiner.encoder_proj(torch.cat(frames)).split([len(f) for f in frames]))
        for frame in frames:  # (N_t, J)
            n, size = len(frame), len(state.score)
            if n < size:  # utterances n..size-1 have ended
                done.append(self.rows(state, n, size))
                state = self.rows(state, 0, n)
            state, parent, symbol = self.step(frame, state)
            trace.parents.append(parent)
            trace.symbols.append(symbol)
        return self.join([state, *reversed(done)]) if done else state, trace


def backtrack(trace: Trace, place: Tensor, fill: int) -> Tuple[Tensor, Tensor]:
    """Follow back pointers from the last frame to the first.

    Args:
      trace: back pointers of T frames.
      place: (N, K), the hypotheses wanted, after the last frame.
      fill: the symbol for frames after an utterance's end.

    Returns:
      (N, K), the place where each hypothesis began, and (N, K, T), its symbol at each frame.
    """
    num_frames = len(trace.parents)
    path = place.new_full((*place.shape, num_frames), fill)  # (N, K, T)
    place = place.clone()
    for t in range(num_frames - 1, -1, -1):
        n = len(trace.parents[t])
        here = place[:n]
        path[:n, :, t] = trace.symbols[t].gather(1, here)
        place[:n] = trace.parents[t].gather(1, here)
    return place, path


def to_paths(symbols: Tensor, blank: int) -> List[List[Path]]:
    """Return the symbols (N, K, T) of hypotheses as N lists of K paths."""
    emits = symbols != blank
    times = emits.nonzero()[:, 2].tolist()  # in the order of utterance, hypothesis, frame
    values = symbols[emits].tolist()
    out: List[List[Path]] = []
    begin = 0
    for counts in emits.sum(dim=2).tolist():
        paths: List[Path] = []
        for count in counts:
            end = begin + count
            paths.append((values[begin:end], times[begin:end]))
            begin = end
        out.append(paths)
    return out


class PathStream(Generic[StateT]):
    """The state of a frame-synchronous search in one stream.

    Attributes:
      state: its live hypotheses, of a batch of one.
      final: (1, B), their scores if they end here.
      paths: the path of each place that holds a hypothesis.
      num_frames: frames consumed.
    """

    def __init__(self, state: StateT, final: Tensor) -> None:
        self.state = state
        self.final = final
        self.paths: List[Path] = [([], []) for _ in range(state.score.size(1))]
        self.num_frames = 0

    def grow(
        self, origins: Sequence[int], new: Sequence[Path], live: Sequence[bool], num_frames: int
    ) -> None:
        """Append the symbols of the next frames.

        Args:
          origins: for each place the place before these frames that its hypothesis came from.
          new: for each place its path in these frames.
          live: for each place whether it holds a hypothesis.
          num_frames: frames consumed.
        """
        paths: List[Path] = []
        for origin, (symbols, times), here in zip(origins, new, live):
            before, earlier = self.paths[origin] if here else ([], [])
            paths.append((before + symbols, earlier + [self.num_frames + t for t in times]))
        self.paths = paths
        self.num_frames += num_frames


def advance_streams(
    search: FrameSynchronousSearch[StateT],
    streams: Sequence[PathStream[StateT]],
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
) -> None:
    """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

    Args:
      search: the search of these streams.
      streams: N streams, changed in place.
      encoder_out: (N, T, C), not projected.
      encoder_out_lens: (N,) int64.
    """
    if not streams:
        return
    packed = pack_frames(encoder_out, encoder_out_lens)
    order = packed.order.tolist()
    state, trace = search.run(packed.frames, search.join([streams[i].state for i in order]))
    final = search.final_scores(state)  # (N, B)
    live = state.score > float("-inf")
    width = int(live.any(dim=0).nonzero().max()) + 1 if bool(live.any()) else 1
    places = torch.arange(width, device=final.device).expand(len(final), width)
    origins, symbols = backtrack(trace, places, search.blank)  # (N, width), (N, width, T)
    paths = to_paths(symbols, search.blank)
    lens = encoder_out_lens.tolist()
    for row, (i, origin, used) in enumerate(zip(order, origins.tolist(), live.tolist())):
        streams[i].grow(origin, paths[row], used, lens[i])
        streams[i].state = search.rows(state, row, row + 1)
        streams[i].final = final[row : row + 1]

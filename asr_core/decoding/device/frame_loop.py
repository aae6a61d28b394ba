"""Frame-synchronous beam searches of whole utterances on the device."""

from typing import Any, Callable, Generic, Iterator, List, NamedTuple, Protocol, Tuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.device.frames import FrameBuffer
from asr_core.decoding.device.replay import Repeated, power_of_two, rows_for
from asr_core.decoding.transducer.frame_synchronous import BatchState, FrameSynchronousSearch

StateT = TypeVar("StateT", bound=BatchState)
_FRAMES = 16  # of a graph


class Stepwise(Protocol[StateT]):
    """What a search must have to run on the device: fixed shapes, and no wait for the device.

    Attributes:
      blank: the symbol of hypotheses that do not grow.
    """

    blank: int

    def step(self, frame: Tensor, state: StateT) -> Tuple[StateT, Tensor, Tensor]:
        """Consume one frame, see :class:`FrameSynchronousSearch`."""
        ...


class Room(NamedTuple):
    """The memory of a search.

    Attributes:
      rows: utterances.
      frames: frames of all utterances together, padding counted.
      like: frames (N, T, J) of the type and width of all.
    """

    rows: int
    frames: int
    like: Tensor


def room_for(x: Tensor) -> Room:
    """Return the room for frames ``x`` (N, T, J), and a little more: few sizes are recorded."""
    num, num_frames = x.shape[:2]
    return Room(rows_for(num), power_of_two(max(1, num * num_frames)), x.new_empty(0, 0, x.size(2)))


class FrameLoop(Generic[StateT]):
    """A search of up to ``room.rows`` utterances whose state stays in the same tensors.

    Args:
      search: takes the steps.
      room: the memory.
      initial: the state of all utterances before the first frame.
      num_symbols: number of symbols.
      noted: what to keep of the state after each frame, tensors (rows, ...).

    Attributes:
      num_symbols: as given.
      state: the hypotheses, those after the last frame when a run has ended.
    """

    def __init__(
        self,
        search: Stepwise[StateT],
        room: Room,
        initial: StateT,
        num_symbols: int,
        noted: Callable[[StateT], Tuple[Tensor, ...]] = lambda state: (),
    ) -> None:
        self._search, self.num_symbols, self._noted = search, num_symbols, noted
        self._initial = initial
        self.state = _copied(initial)
        device = room.like.device
        self._buffer = FrameBuffer(*room)
        self._time = torch.zeros(room.rows, dtype=torch.int64, device=device)
        beam = initial.score.size(1)
        # the trace of utterances that have ended: each hypothesis stays where it is
        self._stays = torch.arange(beam, device=device) * num_symbols + search.blank
        self._traces = [torch.zeros(_FRAMES, room.rows, beam, dtype=torch.int32, device=device)]
        self._traces += [x.new_zeros(_FRAMES, *x.shape) for x in noted(initial)]
        self._frames = Repeated(self._frame, _FRAMES, device)

    def run(self, x: Tensor, lens: Tensor) -> List[Tensor]:
        """Search frames ``x`` (N, T, J) with lengths ``lens`` (N,).

        Returns:
          For each frame, utterance and place, (T, N, B) int32: the place before the frame times the
          number of symbols plus the symbol; then what is noted, (T, N, ...), any where an utterance
          has ended.
        """
        num, num_frames = x.shape[:2]
        self._buffer.fill(x, lens)
        self._time.zero_()
        for tensor, start in zip(_tensors(self.state), _tensors(self._initial)):
            tensor.copy_(start)
        parts: List[List[Tensor]] = []
        for _ in range(max(1, -(-num_frames // _FRAMES))):
            self._frames()
            parts.append([trace.clone() for trace in self._traces])
        return [torch.cat(part)[:num_frames, :num] for part in zip(*parts)]

    def _frame(self, k: int) -> None:
        """Consume one frame of each utterance that has one."""
        going = (self._time < self._buffer.lens).unsqueeze(1)  # (N, 1)
        after, parent, symbol = self._search.step(self._buffer.at(self._time), self.state)
        grown = torch.where(going, parent * self.num_symbols + symbol, self._stays)
        for trace, new in zip(self._traces, (grown, *self._noted(after))):
            trace[k].copy_(new)
        for tensor, new in zip(_tensors(self.state), _tensors(after)):
            mask = going.view(-1, *[1] * (tensor.dim() - 1))
            tensor.copy_(torch.where(mask, new, tensor))
        self._time += 1


class Searched(NamedTuple):
    """What a search of N utterances found.

    Attributes:
      scores: (N, K) of the best hypotheses of each utterance, the best first, in memory of the
        host; -inf where there are fewer.
      symbols: (N, K, T) int64, their symbols at each frame.
    """

    scores: Tensor
    symbols: Tensor


class RankedLoop(FrameLoop[StateT]):
    """A search with back pointers alone, whose best hypotheses are wanted.

    Args:
      search: scores endings.
      ranked: takes scores (N, B) and the state; returns places (N, B), the best first.
      room, initial, num_symbols, noted: see :class:`FrameLoop`.

    Attributes:
      notes: what the last run noted, (T, N, ...) on the device.
    """

    def __init__(
        self,
        search: FrameSynchronousSearch[StateT],
        ranked: Callable[[Tensor, StateT], Tensor],
        room: Room,
        initial: StateT,
        num_symbols: int,
        noted: Callable[[StateT], Tuple[Tensor, ...]] = lambda state: (),
    ) -> None:
        super().__init__(search, room, initial, num_symbols, noted)
        self.notes: List[Tensor] = []
        self._final_scores, self._ranked = search.final_scores, ranked

    def __call__(self, x: Tensor, lens: Tensor, num_best: int) -> Searched:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,)."""
        trace, *self.notes = self.run(x, lens)
        final = self._final_scores(self.state)  # (rows, B)
        places = self._ranked(final, self.state)[: len(x), :num_best]
        scores = final[: len(x)].gather(1, places).cpu()
        symbols = follow(trace.cpu().numpy(), places.cpu().numpy(), self.num_symbols)
        return Searched(scores, torch.from_numpy(symbols))


def _tensors(state: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, which is a tuple of tensors and such tuples."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from _tensors(part)


def _copied(state: Any) -> Any:
    """Return a state of the same form in new memory."""
    if isinstance(state, Tensor):
        return state.clone(memory_format=torch.contiguous_format)
    parts = [_copied(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def follow(trace: np.ndarray, place: np.ndarray, num_symbols: int) -> np.ndarray:
    """Follow back pointers from the last frame to the first.

    Args:
      trace: (T, N, B), place before the frame times ``num_symbols`` plus the symbol.
      place: (N, K), the hypotheses wanted.
      num_symbols: number of symbols.

    Returns:
      (N, K, T) int64, their symbols.
    """
    symbols = np.zeros((len(trace), *place.shape), np.int64)
    for t in range(len(trace) - 1, -1, -1):
        place, symbols[t] = np.divmod(np.take_along_axis(trace[t], place, axis=1), num_symbols)
    return np.moveaxis(symbols, 0, 2)

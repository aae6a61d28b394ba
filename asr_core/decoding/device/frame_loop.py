"""Frame-synchronous beam searches of whole utterances on the device."""

from typing import Any, Callable, Generic, Iterator, List, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.device.frames import FrameBuffer
from asr_core.decoding.device.replay import Repeated
from asr_core.decoding.transducer.frame_synchronous import BatchState, FrameSynchronousSearch

StateT = TypeVar("StateT", bound=BatchState)
_FRAMES = 16  # of a graph


class Searched(NamedTuple):
    """What a search of N utterances found.

    Attributes:
      scores: (N, K) of the best hypotheses of each utterance, the best first, in memory of the
        host; -inf where there are fewer.
      symbols: (N, K, T) int64, their symbols at each frame.
    """

    scores: Tensor
    symbols: Tensor


class FrameLoop(Generic[StateT]):
    """A search of up to ``rows`` utterances whose state stays in the same tensors.

    Args:
      search: its :meth:`step` has fixed shapes and never waits for the device.
      ranked: takes scores (N, B) and the state; returns places (N, B), the best first.
      rows, room, like: see :class:`~asr_core.decoding.device.frames.FrameBuffer`.
      initial: the state of ``rows`` utterances before the first frame.
      num_symbols: number of symbols.
    """

    def __init__(
        self,
        search: FrameSynchronousSearch[StateT],
        ranked: Callable[[Tensor, StateT], Tensor],
        *,
        rows: int,
        room: int,
        like: Tensor,
        initial: StateT,
        num_symbols: int,
    ) -> None:
        self._search, self._ranked, self._num_symbols = search, ranked, num_symbols
        self._initial = initial
        self._state = _copied(initial)
        self._buffer = FrameBuffer(rows, room, like)
        self._time = torch.zeros(rows, dtype=torch.int64, device=like.device)
        beam = initial.score.size(1)
        # the trace of utterances that have ended: each hypothesis stays where it is
        self._stays = torch.arange(beam, device=like.device) * num_symbols + search.blank
        self._trace = torch.zeros(_FRAMES, rows, beam, dtype=torch.int32, device=like.device)
        self._frames = Repeated(self._frame, _FRAMES, like.device)

    def __call__(self, x: Tensor, lens: Tensor, num_best: int) -> Searched:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,)."""
        num, num_frames = x.shape[:2]
        self._buffer.fill(x, lens)
        self._time.zero_()
        for tensor, start in zip(_tensors(self._state), _tensors(self._initial)):
            tensor.copy_(start)
        parts: List[Tensor] = []
        for _ in range(max(1, -(-num_frames // _FRAMES))):
            self._frames()
            parts.append(self._trace.clone())
        trace = torch.cat(parts)[:num_frames, :num].cpu().numpy()  # (T, N, B)
        final = self._search.final_scores(self._state)  # (rows, B)
        places = self._ranked(final, self._state)[:num, :num_best]
        scores = final[:num].gather(1, places).cpu()
        symbols = _follow(trace, places.cpu().numpy(), self._num_symbols)
        return Searched(scores, torch.from_numpy(symbols))

    def _frame(self, k: int) -> None:
        """Consume one frame of each utterance that has one."""
        going = (self._time < self._buffer.lens).unsqueeze(1)  # (N, 1)
        after, parent, symbol = self._search.step(self._buffer.at(self._time), self._state)
        self._trace[k].copy_(torch.where(going, parent * self._num_symbols + symbol, self._stays))
        for tensor, new in zip(_tensors(self._state), _tensors(after)):
            mask = going.view(-1, *[1] * (tensor.dim() - 1))
            tensor.copy_(torch.where(mask, new, tensor))
        self._time += 1


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


def _follow(trace: np.ndarray, place: np.ndarray, num_symbols: int) -> np.ndarray:
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

"""Decoding of many streams: a streaming encoder and a streaming search, a chunk at a time."""

from typing import Any, Generic, Iterable, Iterator, List, Tuple, TypeVar, Union

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.padding import searched_frames, streaming_windows
from asr_core.decoding.precision import input_dtype
from asr_core.decoding.protocol import SearchStream, StreamingModel, StreamingSearch
from asr_core.encoders.protocol import FrameGeometry
from asr_core.encoders.states import select_states, stack_states

K = TypeVar("K")


class Stream(Generic[K]):
    """One utterance that is being decoded.

    Attributes:
      key: the caller's name for it.
      windows: (K, W, F), see :func:`~asr_core.decoding.padding.streaming_windows`.
      position: windows consumed.
      frames_left: encoder output frames left to search.
      search: the state of its search.
    """

    def __init__(
        self, key: K, features: Tensor, chunk_size: int, search: SearchStream, geometry: FrameGeometry
    ) -> None:
        self.key = key
        self.windows = streaming_windows(features, chunk_size, geometry)
        self.position = 0
        self.frames_left = int(searched_frames(torch.tensor(len(features)), geometry))
        self.search = search

    def take(self, num_frames: int) -> int:
        """Count ``num_frames`` encoder output frames; return how many of them to search."""
        searched = min(num_frames, self.frames_left)
        self.frames_left -= searched
        return searched

    @property
    def finished(self) -> bool:
        """Whether all windows are consumed."""
        return self.position >= len(self.windows)


def state_batch_dims(encoder: StreamingModel) -> List[int]:
    """Return the batch axis of each state tensor of a streaming encoder.

    Our encoders have a method for it. TorchScript files do not: there the shapes of one
    stream's states and two's are compared.
    """
    own = getattr(encoder, "state_batch_dims", None)
    if own is not None:
        return own()
    device = torch.device("cpu")
    dims = []
    for a, b in zip(encoder.get_init_states(1, device), encoder.get_init_states(2, device)):
        differing = [d for d, (m, n) in enumerate(zip(a.shape, b.shape)) if m != n]
        if len(differing) != 1:
            raise ValueError(f"state of shape {tuple(a.shape)} has no single batch dimension")
        dims.append(differing[0])
    return dims


class StreamBatch(Generic[K]):
    """The streams that are decoded together, with their encoder states stacked.

    Args:
      encoder: an AsrModel in chunk mode, or a :class:`~asr_core.export.torchscript.ScriptedModel`.
      search: a streaming search of the registry.
      chunk_size: in 50-Hz frames.
      device: device of the encoder.

    Attributes:
      streams: those that have not ended.
    """

    def __init__(
        self,
        encoder: StreamingModel,
        search: StreamingSearch[Any],
        chunk_size: int,
        device: Union[str, torch.device] = "cpu",
    ) -> None:
        self._encoder = encoder
        self._search = search
        self._chunk_size = chunk_size
        self._device = torch.device(device)
        self._dtype = input_dtype(encoder)
        self._dims = state_batch_dims(encoder)
        self._states: List[Tensor] = []
        self.streams: List[Stream[K]] = []

    def add(self, features: Iterable[Tuple[K, Tensor]]) -> None:
        """Start decoding utterances, given as (key, features (T, F))."""
        new = [self._new_stream(key, f) for key, f in features]
        if not new:
            return
        states = [
            s.to(self._dtype) if s.is_floating_point() else s
            for s in self._encoder.get_init_states(len(new), self._device)
        ]
        self._states = stack_states([self._states, states], self._dims) if self.streams else states
        self.streams += new

    def _new_stream(self, key: K, features: Tensor) -> Stream[K]:
        search, geometry = self._search.new_stream(), self._encoder.geometry
        return Stream(key, features.to(self._device, self._dtype), self._chunk_size, search, geometry)

    @torch.inference_mode()
    def step(self) -> List[Stream[K]]:
        """Advance every stream by one chunk; take out and return those that have ended."""
        x = torch.stack([s.windows[s.position] for s in self.streams])  # (N, W, F)
        x_lens = torch.full((len(x),), x.size(1), dtype=torch.int64, device=self._device)
        encoder_out, lens, self._states = self._encoder.streaming_forward(x, x_lens, self._states)
        wanted = [s.take(n) for s, n in zip(self.streams, lens.tolist())]
        searched = torch.tensor(wanted, dtype=torch.int64, device=self._device)
        self._search.advance([s.search for s in self.streams], encoder_out, searched)
        for stream in self.streams:
            stream.position += 1
        ended = [s for s in self.streams if s.finished]
        if ended:
            kept = [i for i, s in enumerate(self.streams) if not s.finished]
            index = torch.tensor(kept, dtype=torch.int64, device=self._device)
            self._states = select_states(self._states, self._dims, index)
            self.streams = [self.streams[i] for i in kept]
        return ended


def decode_streams(
    batch: StreamBatch[K], features: Iterable[Tuple[K, Tensor]], num_streams: int
) -> Iterator[Tuple[K, Hypothesis]]:
    """Decode utterances chunk by chunk; a new one begins as soon as one has ended.

    Args:
      batch: an empty batch of streams.
      features: (key, features (T, F)) of each utterance, read as places become free.
      num_streams: places: utterances decoded at a time.

    Yields:
      (key, hypothesis), in the order in which utterances end.
    """
    waiting = iter(features)
    exhausted = False
    while True:
        new: List[Tuple[K, Tensor]] = []
        while not exhausted and len(batch.streams) + len(new) < num_streams:
            try:
                new.append(next(waiting))
            except StopIteration:
                exhausted = True
        batch.add(new)
        if not batch.streams:
            return
        for stream in batch.step():
            yield stream.key, stream.search.hypothesis()

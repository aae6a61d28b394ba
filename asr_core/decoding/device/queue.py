"""Encoding of the next batch while the one before it is searched."""

import contextlib
from collections import deque
from typing import Deque, Iterable, Iterator, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class EncoderQueue:
    """The order of encoder and search on a device.

    On a GPU the encoder has a stream of its own: it works on the next batch while a search, or the
    host, is busy with the one before. On a CPU everything is done in its turn.

    Args:
      device: of the model.

    Attributes:
      ahead: batches to encode before the first is searched.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._events: Deque["torch.cuda.Event"] = deque()
        self.ahead = 0 if self._stream is None else 1

    @contextlib.contextmanager
    def queued(self) -> Iterator[None]:
        """Return a context whose work on the GPU is the encoder's, of the next batch."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
            event = torch.cuda.Event()
            event.record()
            self._events.append(event)

    def wait_for(self, *tensors: Tensor) -> None:
        """Let a search begin after the encoder of the oldest batch, which made ``tensors``."""
        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._events.popleft())
        for tensor in tensors:
            if tensor.is_cuda:
                tensor.record_stream(current)


def behind(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield ``items``, each when ``ahead`` more have been made."""
    waiting: Deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting

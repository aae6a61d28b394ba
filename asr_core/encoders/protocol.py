"""What every encoder offers to the rest of the library."""

from typing import List, NamedTuple, Protocol, Tuple, runtime_checkable

import torch
from torch import Tensor


class FrameGeometry(NamedTuple):
    """How feature frames, 100 a second, become frames of encoder output.

    Attributes:
      embed_factor: feature frames per frame of the front end's output.
      encoder_factor: frames of the front end's output per frame of the encoder's.
      trimmed_frames: feature frames that a whole utterance needs beyond a multiple of the chunk to give whole chunks.
      look_ahead: feature frames that a streaming window has beyond the chunk it advances.
    """

    embed_factor: int = 2
    encoder_factor: int = 2
    trimmed_frames: int = 7
    look_ahead: int = 13

    @property
    def subsampling_factor(self) -> int:
        """Feature frames per frame of encoder output."""
        return self.embed_factor * self.encoder_factor


@runtime_checkable
class FrontEnd(Protocol):
    """A map from features to the frames that an encoder takes; see :class:`FrameGeometry` for the attributes.

    One that streams has ``get_init_states(batch_size, device)`` -> one tensor whose axis 0 counts streams, and
    ``streaming_forward(x (N, chunk + look_ahead, F), x_lens, state)`` -> (frames (N, chunk / subsampling_factor, C), lengths, state).
    """

    subsampling_factor: int
    trimmed_frames: int
    look_ahead: int

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Features (N, T, F), lengths (N,) -> (N, T', C), (N,)."""


@runtime_checkable
class Encoder(Protocol):
    """A map from frames to encoder output.

    ``causal`` says whether it was built to stream; ``chunk_size`` and ``left_context_frames`` (tuples, in 50 Hz frames whatever the
    front end's rate) are what training draws from and evaluation takes the first of. ``check_chunk(chunk_size,
    left_context_frames)`` raises a UserError for values that do not fit. One with inner outputs for CTC heads has ``encoder_dim``,
    their widths, and ``forward_stacks(x, x_lens)``, which returns them (T, N, C) besides.
    """

    output_downsampling_factor: int
    causal: bool
    chunk_size: Tuple[int, ...]
    left_context_frames: Tuple[int, ...]

    @property
    def output_dim(self) -> int:
        """Width of the output."""

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """(N, T, C), (N,) -> (N, T', output_dim), (N,)."""


@runtime_checkable
class StreamingEncoder(Encoder, Protocol):
    """An encoder that also works chunk by chunk, for many streams at a time."""

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """States of ``batch_size`` new streams; the last counts the frames that each has processed, (batch_size,)."""

    def state_batch_dims(self) -> List[int]:
        """The batch axis of each state."""

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """One chunk (N, T, C) of each stream -> output, its lengths, and the next states."""

"""The interface of front ends and encoders to the rest of the library."""

from typing import List, NamedTuple, Protocol, Tuple, runtime_checkable

import torch
from torch import Tensor


class FrameGeometry(NamedTuple):
    """The mapping from feature frames (100 Hz) to frames of encoder output.

    Attributes:
      embed_factor: feature frames per frame of the front end's output.
      encoder_factor: frames of the front end's output per frame of the encoder's.
      trimmed_frames: feature frames that the front end drops; an utterance needs them beyond a
        multiple of the chunk to give whole chunks.
      look_ahead: feature frames that a streaming window has beyond the chunk that it advances.
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
    """A map from features to the frames that an encoder takes.

    See :class:`FrameGeometry` for the attributes.
    """

    subsampling_factor: int
    trimmed_frames: int
    look_ahead: int

    def __call__(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Map features (N, T, F) and lengths (N,) to frames (N, T', C) and lengths (N,)."""


@runtime_checkable
class StreamingFrontEnd(FrontEnd, Protocol):
    """A front end that also works chunk by chunk."""

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return the state of N = ``batch_size`` new streams, (N, ...)."""

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Map one window of each stream.

        Args:
          x: (N, chunk + look_ahead, F) features.
          x_lens: (N,) valid frames.
          state: from :meth:`get_init_states` or the previous call.

        Returns:
          (N, chunk / subsampling_factor, C), its lengths, and the next state.
        """


@runtime_checkable
class Encoder(Protocol):
    """A map from frames to encoder output.

    Attributes:
      output_dim: width of the output.
      output_downsampling_factor: frames of input per frame of output.
      causal: whether it was built to stream.
      chunk_size, left_context_frames: values in 50 Hz frames, whatever the front end's rate, from
        which training draws and of which evaluation takes the first.
    """

    output_dim: int
    output_downsampling_factor: int
    causal: bool
    chunk_size: Tuple[int, ...]
    left_context_frames: Tuple[int, ...]

    def __call__(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Map frames (N, T, C) and lengths (N,) to output (N, T', output_dim) and lengths (N,)."""

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return the chunks of left context that these settings give.

        Raises:
          UserError: they do not fit the encoder.
        """


@runtime_checkable
class LayeredEncoder(Encoder, Protocol):
    """An encoder with inner outputs, to which CTC heads can be attached.

    Attributes:
      encoder_dim: widths C_i of the inner outputs.
    """

    encoder_dim: Tuple[int, ...]

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode as calling it does, and return the inner outputs (T, N, C_i), too."""


@runtime_checkable
class StreamingEncoder(Encoder, Protocol):
    """An encoder that also works chunk by chunk, for many streams at a time."""

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` streams; the last counts their frames, (N,)."""

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state."""

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode a chunk x (N, T, C) of each stream: (N, T', output_dim), lengths, next states."""

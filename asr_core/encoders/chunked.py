"""The base of all encoders: choice of a batch's chunk, and checks before streaming."""

import random
from typing import Tuple

from torch import nn

from asr_core.utils.errors import UserError


class ChunkedEncoder(nn.Module):
    """Base of encoders that can be causal; see :class:`~asr_core.encoders.protocol.Encoder`.

    Args:
      causal: whether the encoder can stream.
      chunk_size: chunk sizes (50 Hz frames) of which training draws one per batch; -1 is the whole
        utterance. Evaluation takes the first. Ignored unless causal.
      left_context_frames: left contexts (50 Hz frames), drawn in the same way; -1 is unlimited.
    """

    output_dim: int
    output_downsampling_factor: int

    def __init__(
        self, causal: bool, chunk_size: Tuple[int, ...], left_context_frames: Tuple[int, ...]
    ) -> None:
        super().__init__()
        self.causal = causal
        self.chunk_size = chunk_size
        self.left_context_frames = left_context_frames

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return the chunks of left context that these settings give; -1 stands for all.

        Args:
          chunk_size, left_context_frames: in 50 Hz frames; -1 stands for all.

        Raises:
          UserError: they do not fit the encoder.
        """
        raise NotImplementedError

    def check_chunks(self) -> None:
        """Refuse chunk sizes and left contexts that do not fit the encoder, if it is causal.

        Raises:
          UserError: one of them does not fit.
        """
        if self.causal:
            for chunk_size in self.chunk_size:
                for left_context_frames in self.left_context_frames:
                    self.check_chunk(chunk_size, left_context_frames)

    def _draw_chunk(self) -> Tuple[int, int]:
        """Draw (chunk size, chunks of left context) for one batch; -1 stands for all."""
        if not self.causal:
            return -1, -1
        chunk_size = random.choice(self.chunk_size) if self.training else self.chunk_size[0]
        if chunk_size < 0:
            return -1, -1
        left_frames = (
            random.choice(self.left_context_frames) if self.training else self.left_context_frames[0]
        )
        return chunk_size, self.check_chunk(chunk_size, left_frames)

    def _check_streaming(self) -> None:
        """Refuse to stream unless there is one chunk size and one left context.

        Raises:
          UserError: the encoder is not causal, or they are not single, limited values that fit it.
        """
        if not self.causal:
            raise UserError(
                "this encoder is not causal, so it cannot stream: it must be trained with --causal 1"
            )
        if (
            len(self.chunk_size) != 1
            or len(self.left_context_frames) != 1
            or self.chunk_size[0] <= 0
            or self.left_context_frames[0] < 0
        ):
            raise UserError(
                "streaming needs one chunk size above 0 and one left context of at least 0, not"
                f" {self.chunk_size} and {self.left_context_frames}: give --chunk-size and "
                "--left-context-frames"
            )
        chunk_size, left_frames = self.chunk_size[0], self.left_context_frames[0]
        # whole chunks, as in training, where each frame of a chunk sees the same chunks before it
        if left_frames % chunk_size != 0 or left_frames == 0:
            raise UserError(
                f"--left-context-frames {left_frames} must be a multiple of --chunk-size "
                f"{chunk_size} in streaming"
            )
        self.check_chunk(chunk_size, left_frames)

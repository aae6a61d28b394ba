"""The base of encoders that are causal frame by frame: chunks do not change their output."""

from typing import Sequence

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.utils.errors import UserError


class FrameCausalEncoder(ChunkedEncoder):
    """Base of encoders whose states hold the whole past.

    Neither the chunk size nor the left context changes their output.

    Args:
      causal, chunk_size, left_context_frames: see
        :class:`~asr_core.encoders.chunked.ChunkedEncoder`.
      chunk_multiple: number of 50 Hz frames of which a chunk must be a multiple, so that it gives
        whole frames of output.
    """

    def __init__(
        self, causal: bool, chunk_size: Sequence[int], left_context_frames: Sequence[int], chunk_multiple: int
    ) -> None:
        super().__init__(causal, tuple(chunk_size), tuple(left_context_frames))
        self.chunk_multiple = chunk_multiple

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return -1: all of the left context is seen, regardless of ``left_context_frames``.

        Raises:
          UserError: the chunk does not give whole frames of output.
        """
        if chunk_size == 0 or (chunk_size > 0 and chunk_size % self.chunk_multiple != 0):
            raise UserError(
                f"--chunk-size {chunk_size} must be a multiple of {self.chunk_multiple} for this encoder"
            )
        return -1

    def _check_streaming(self) -> None:
        """Refuse to stream unless there is one limited chunk size, whatever the left context."""
        if not self.causal:
            raise UserError(
                "this encoder is not causal, so it cannot stream: it must be trained with --causal 1"
            )
        if len(self.chunk_size) != 1 or self.chunk_size[0] <= 0:
            raise UserError(
                f"streaming needs one chunk size above 0, not {self.chunk_size}: give --chunk-size"
            )
        self.check_chunk(self.chunk_size[0], -1)

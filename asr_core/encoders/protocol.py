"""What every encoder offers to the rest of the library."""

from typing import List, Protocol, Tuple, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """A map from frames to encoder output."""

    @property
    def output_dim(self) -> int:
        """Width of the output."""

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """(N, T, C), (N,) -> (N, T', output_dim), (N,)."""


@runtime_checkable
class StreamingEncoder(Encoder, Protocol):
    """An encoder that also works chunk by chunk, for many streams at a time."""

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> List[Tensor]:
        """States of ``batch_size`` new streams."""

    def state_batch_dims(self) -> List[int]:
        """The batch axis of each state."""

    def streaming_forward(self, x: Tensor, x_lens: Tensor, states: List[Tensor]) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """One chunk (N, T, C) of each stream -> output, its lengths, and the next states."""

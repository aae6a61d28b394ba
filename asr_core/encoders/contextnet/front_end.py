"""The front end of encoders that need none."""

from typing import Tuple

import torch
from torch import Tensor, nn


class PassThrough(nn.Module):
    """No front end: the encoder takes the features as they are."""

    subsampling_factor = 1
    trimmed_frames = 0
    look_ahead = 0

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Features (N, T, F) and lengths (N,), unchanged."""
        return x, x_lens

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """There is nothing to remember: (batch_size, 0)."""
        return torch.zeros(batch_size, 0, device=device)

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """One chunk, unchanged."""
        return x, x_lens, state

"""The front end of encoders that take features directly."""

from typing import Tuple

import torch
from torch import Tensor, nn


class PassThrough(nn.Module):
    """An identity with the interface of a front end."""

    subsampling_factor = 1
    trimmed_frames = 0
    look_ahead = 0

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Return features (N, T, F) and lengths (N,) unchanged."""
        return x, x_lens

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return an empty state (N, 0): there is nothing to remember."""
        return torch.zeros(batch_size, 0, device=device)

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Return one chunk (N, T, F), its lengths (N,) and the state (N, 0) unchanged."""
        return x, x_lens, state

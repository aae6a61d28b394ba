"""The front end of the first Zipformer: 100 Hz features to 50 Hz frames."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.encoders.zipformer1.modules import ActivationBalancer
from asr_core.nn.activations import DoubleSwish
from asr_core.nn.scaling import ScaledLinear


class Conv2dSubsamplingZipformer1(nn.Module):
    """Three convolutions of 8, 32 and 128 channels without padding in time, and a projection.

    T feature frames give ``(T - 7) // 2`` frames.

    Args:
      in_channels: features F per frame, at least 7.
      out_channels: width C of the output.
      dropout: dropout rate of the output.
    """

    subsampling_factor = 2
    trimmed_frames = 7
    look_ahead = 7

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        if in_channels < 7:
            raise ValueError(f"the front end needs at least 7 features per frame, got {in_channels}")
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=(0, 1)),
            ActivationBalancer(8, channel_dim=1),
            DoubleSwish(),
            nn.Conv2d(8, 32, 3, stride=2),
            ActivationBalancer(32, channel_dim=1),
            DoubleSwish(),
            nn.Conv2d(32, 128, 3, stride=(1, 2)),
            ActivationBalancer(128, channel_dim=1),
            DoubleSwish(),
        )
        self.out_width = ((in_channels - 1) // 2 - 1) // 2
        self.out = ScaledLinear(self.out_width * 128, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Subsample whole utterances.

        Args:
          x: (N, T, F) features, T at least 9.
          x_lens: (N,) valid frames.

        Returns:
          (N, (T - 7) // 2, C) and the lengths (N,).
        """
        # these strides make every convolution keep the channels innermost
        y = self.conv(x.unsqueeze(3).permute(0, 3, 1, 2))
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            y = self.out(y.transpose(1, 2).flatten(2))
        else:  # reorders the weight, which is smaller than the activations
            weight = self.out.weight.unflatten(1, (128, self.out_width)).transpose(1, 2).flatten(1)
            y = F.linear(y.permute(0, 2, 3, 1).flatten(2), weight, self.out.bias)
        return self.dropout(y), (x_lens - 7) // 2

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Subsample one window of each stream.

        Args:
          x: (N, 2 T + 7, F) features.
          x_lens: (N,) valid frames.
          state: (N, 0), unused.

        Returns:
          (N, T, C), the lengths (N,), and the state.
        """
        x, x_lens = self.forward(x, x_lens)
        return x, x_lens, state

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return an empty state (N, 0): windows overlap, so nothing is remembered."""
        return torch.zeros(batch_size, 0, device=device)

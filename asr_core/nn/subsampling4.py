"""Front ends that reduce the frame rate, by convolutions or by stacking frames."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.masks import make_pad_mask


def _blank_padding(x: Tensor, lens: Tensor) -> Tensor:
    """Return x (N, T, ...) with zeros from each length (N,) on: what a convolution sees there if
    the sequence is alone.
    """
    mask = make_pad_mask(lens.to(x.device), x.size(1))
    return x.flatten(2).masked_fill(mask.unsqueeze(-1), 0.0).reshape(x.shape)


class Conv2dSubsampling4(nn.Module):
    """Two convolutions of stride 2 and a projection: (N, T, F) -> (N, ceil(T / 4), C).

    Output frame i sees features ``4 i - 3 .. 4 i + 3``: with chunks of a multiple of four there is
    no look-ahead. What is beyond a sequence counts as zero, also between the convolutions.

    Args:
      in_channels: features per frame.
      out_channels: width of the output.
      channels: channels of the convolutions.
      dropout: dropout rate of the output.
    """

    subsampling_factor = 4
    trimmed_frames = 0
    look_ahead = 0

    def __init__(
        self, in_channels: int, out_channels: int, channels: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels
        self.width = (in_channels + 1) // 2
        self.conv1 = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.out = nn.Linear((self.width + 1) // 2 * channels, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode features (N, T, in_channels) as (N, ceil(T / 4), out_channels), with lengths."""
        y = F.relu(self.conv1(_blank_padding(x, x_lens).unsqueeze(1)))
        lens = (x_lens + 1) // 2
        y = _blank_padding(y.transpose(1, 2), lens).transpose(1, 2)
        return self._project(F.relu(self.conv2(y))), (lens + 1) // 2

    def _project(self, y: Tensor) -> Tensor:
        """Map y (N, channels, T, F) to (N, T, out_channels)."""
        return self.dropout(self.out(y.permute(0, 2, 3, 1).flatten(2)))

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Encode one chunk (N, T, in_channels), T a multiple of 4, as (N, T / 4, out_channels).

        Also return lengths and next state.
        """
        x = torch.cat([state[:, : self.in_channels].unsqueeze(1), _blank_padding(x, x_lens)], dim=1)
        y = F.relu(F.conv2d(x.unsqueeze(1), self.conv1.weight, self.conv1.bias, stride=2, padding=(0, 1)))
        lens = (x_lens + 1) // 2
        y = _blank_padding(y.transpose(1, 2), lens).transpose(1, 2)
        cached = state[:, self.in_channels :].reshape(-1, self.channels, 1, self.width)
        y = torch.cat([cached, y], dim=2)
        state = torch.cat([x[:, -1], y[:, :, -1].flatten(1)], dim=1)
        y = F.relu(F.conv2d(y, self.conv2.weight, self.conv2.bias, stride=2, padding=(0, 1)))
        return self._project(y), (lens + 1) // 2, state

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return the state of new streams: the last frames of the features and of the first
        convolution, zeros (N, size).
        """
        return torch.zeros(batch_size, self.in_channels + self.channels * self.width, device=device)


class _Stateless(nn.Module):
    """Front end without a state: a window holds all features that its output depends on."""

    def streaming_forward(self, x: Tensor, x_lens: Tensor, state: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Encode one window (N, T, in_channels) as ``forward`` does.

        Also return its lengths and the state, which is empty.
        """
        x, x_lens = self.forward(x, x_lens)
        return x, x_lens, state

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return the empty state, (batch_size, 0)."""
        return torch.zeros(batch_size, 0, device=device)


class Conv2dSubsamplingNarrow(_Stateless):
    """Three unpadded convolutions and a projection: (N, T, F) -> (N, (T - 5) // 4, C).

    The convolutions have 8, 32 and 128 channels.

    The front end of icefall's Conformer, but without zeros before and after the utterance.

    Args:
      in_channels: features per frame, at least 7.
      out_channels: width of the output.
      activation: after each convolution.
      dropout: dropout rate of the output.
    """

    subsampling_factor = 4
    trimmed_frames = 5
    look_ahead = 5

    def __init__(
        self, in_channels: int, out_channels: int, activation: nn.Module, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if in_channels < 7:
            raise ValueError(f"the front end needs at least 7 features per frame, got {in_channels}")
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=(0, 1)),
            activation,
            nn.Conv2d(8, 32, 3, stride=2),
            activation,
            nn.Conv2d(32, 128, 3, stride=2),
            activation,
        )
        self.out = nn.Linear((((in_channels - 1) // 2 - 1) // 2) * 128, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode features (N, T, in_channels) as (N, (T - 5) // 4, out_channels), with lengths.

        T is at least 9.
        """
        y = self.conv(x.unsqueeze(1))
        return self.dropout(self.out(y.transpose(1, 2).flatten(2))), (x_lens - 5) // 4


class FrameStacking(_Stateless):
    """Groups of ``factor`` frames as one, and a projection: (N, T, F) -> (N, ceil(T / factor), C).

    Args:
      in_channels: features per frame.
      out_channels: width of the output.
      factor: frames per group; zeros fill up the last one.
      dropout: dropout rate of the output.
    """

    trimmed_frames = 0
    look_ahead = 0

    def __init__(self, in_channels: int, out_channels: int, factor: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.subsampling_factor = factor
        self.out = nn.Linear(in_channels * factor, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode features (N, T, in_channels) as (N, ceil(T / factor), out_channels)."""
        factor = self.subsampling_factor
        num_groups = (x.size(1) + factor - 1) // factor
        x = F.pad(_blank_padding(x, x_lens), (0, 0, 0, num_groups * factor - x.size(1)))
        x = self.dropout(self.out(x.reshape(x.size(0), num_groups, factor * x.size(2))))
        return x, (x_lens + factor - 1) // factor


class VggStacking(_Stateless):
    """Convolutions of 32, 64 and 64 channels with poolings over frequency, then
    :class:`FrameStacking`.

    There is no padding in time: output frame i sees features ``3 i .. 3 i + 8``. (The front end of
    hybrid Conformers, Zeineldeen et al. 2022, https://arxiv.org/abs/2111.03442, but without zeros
    before and after the utterance.)

    Args:
      in_channels: features per frame, at least 4.
      out_channels: width of the output.
      factor: frames per group.
      dropout: dropout rate of the output.
    """

    trimmed_frames = 6
    look_ahead = 6

    def __init__(self, in_channels: int, out_channels: int, factor: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        if in_channels < 4:
            raise ValueError(f"the front end needs at least 4 features per frame, got {in_channels}")
        self.subsampling_factor = factor
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=(0, 1)),
            nn.ReLU(),
            nn.MaxPool2d((1, 2)),
            nn.Conv2d(32, 64, 3, padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=(0, 1)),
            nn.ReLU(),
            nn.MaxPool2d((1, 2)),
        )
        self.stack = FrameStacking(in_channels // 2 // 2 * 64, out_channels, factor, dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode features (N, T, in_channels), T at least 7, with lengths (N,).

        Returns:
          (N, ceil((T - 6) / factor), out_channels) and its lengths.
        """
        y = self.conv(x.unsqueeze(1))
        return self.stack(y.transpose(1, 2).flatten(2), x_lens - 6)

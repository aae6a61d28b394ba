"""The convolution module of Zipformer, and its chunk-causal depthwise convolution (Yao et al. 2023, section 3.5)."""

from typing import Final, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.scaling import ActivationDropoutAndLinear, Balancer, ScheduledFloat, Whiten, whitening_limit
from asr_core.ops.depthwise import depthwise_conv1d


class ChunkCausalDepthwiseConv1d(nn.Module):
    """A causal convolution over all frames plus one that sees the whole of its own chunk and nothing else.

    Args:
      channels: number of channels.
      kernel_size: K, odd. The causal kernel has (K + 1) / 2 taps, the other one K.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel size must be odd, got {kernel_size}")
        self.kernel_size = kernel_size
        # rows: change of the chunk-wise part's scale near the chunk's left and right edge
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel_size))
        self.causal_conv = nn.Conv1d(channels, channels, (kernel_size + 1) // 2, groups=channels)
        self.chunkwise_conv = nn.Conv1d(
            channels, channels, kernel_size, groups=channels, padding=kernel_size // 2
        )
        nn.init.uniform_(self.causal_conv.bias, -0.1, 0.1)

    def forward(self, x: Tensor, chunk_size: int = -1) -> Tensor:
        """x (T, N, C) -> same shape; a negative chunk size, or one above T, takes the sequence as one chunk."""
        seq_len, pad = x.size(0), self.kernel_size // 2
        if chunk_size < 0 or chunk_size > seq_len:
            chunk_size = seq_len
        x_causal = depthwise_conv1d(x, self.causal_conv.weight, self.causal_conv.bias, pad, 0)
        x_chunk = depthwise_conv1d(x, self.chunkwise_conv.weight, self.chunkwise_conv.bias, pad, chunk_size)
        scale = (
            self._chunk_scale(chunk_size).t().repeat((seq_len + chunk_size - 1) // chunk_size, 1)[:seq_len]
        )
        return torch.addcmul(x_causal, x_chunk, scale.unsqueeze(1))

    def _chunk_scale(self, chunk_size: int) -> Tensor:
        left, right = self.chunkwise_conv_scale[0], self.chunkwise_conv_scale[1]
        if chunk_size < self.kernel_size:
            return 1.0 + (left[:, :chunk_size] + right[:, self.kernel_size - chunk_size :])
        pad = chunk_size - self.kernel_size
        return 1.0 + (F.pad(left, (0, pad)) + F.pad(right, (pad, 0)))

    def streaming_forward(self, x: Tensor, cache: Tensor) -> Tuple[Tensor, Tensor]:
        """One chunk: x (N, C, T), cache (N, C, K // 2) of the frames before it -> (N, C, T), next cache."""
        seq_len = x.size(2)
        whole = torch.cat([cache, x], dim=2)
        x = self.causal_conv(whole) + self.chunkwise_conv(x) * self._chunk_scale(seq_len)
        return x, whole[..., whole.size(2) - self.kernel_size // 2 :]


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution over time, Swoosh and projection.

    Args:
      channels: width of input and output.
      kernel_size: odd.
      causal: chunk-causal convolution, for streaming.
    """

    causal: Final[bool]  # a constant for scripting, which then leaves the other branch out

    def __init__(self, channels: int, kernel_size: int, causal: bool) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel size must be odd, got {kernel_size}")
        self.causal = causal
        self.in_proj = nn.Linear(channels, 2 * channels)
        self.balancer1 = Balancer(
            channels,
            min_positive=ScheduledFloat((0.0, 0.05), (8000.0, 0.025)),
            max_positive=1.0,
            min_abs=1.5,
            max_abs=ScheduledFloat((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv: nn.Module
        if causal:
            self.depthwise_conv = ChunkCausalDepthwiseConv1d(channels, kernel_size)
        else:
            self.depthwise_conv = nn.Conv1d(
                channels, channels, kernel_size, groups=channels, padding=kernel_size // 2
            )
        self.balancer2 = Balancer(
            channels,
            min_positive=ScheduledFloat((0.0, 0.1), (8000.0, 0.05)),
            max_positive=1.0,
            min_abs=ScheduledFloat((0.0, 0.2), (20000.0, 0.5)),
            max_abs=10.0,
        )
        self.whiten = Whiten(1, whitening_limit=whitening_limit(7.5), prob=(0.025, 0.25), grad_scale=0.01)
        self.out_proj = ActivationDropoutAndLinear(
            channels, channels, activation="SwooshR", initial_scale=0.05
        )

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None, chunk_size: int = -1) -> Tensor:
        """x (T, N, C), pad_mask (N, T) True at padding -> (T, N, C)."""
        x = self._gate(self.in_proj(x))
        if pad_mask is not None:
            x = x.masked_fill(pad_mask.t().unsqueeze(2), 0.0)
        if not self.causal:
            conv = self.depthwise_conv
            x = depthwise_conv1d(x, conv.weight, conv.bias, conv.kernel_size[0] // 2, 0)
        elif torch.jit.is_scripting() or torch.jit.is_tracing():
            x = self.depthwise_conv(x)
        else:
            x = self.depthwise_conv(x, chunk_size)
        return self.out_proj(self.whiten(self.balancer2(x)))

    def _gate(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return F.glu(x, dim=2)
        if self.training and self.balancer1.drawn(x):
            x, s = x.chunk(2, dim=2)
            return x * torch.sigmoid(self.balancer1.act(s))
        return F.glu(x, dim=2)

    def streaming_forward(self, x: Tensor, cache: Tensor, pad_mask: Tensor) -> Tuple[Tensor, Tensor]:
        """One chunk: x (T, N, C), cache (N, C, K // 2), pad_mask (N, T) -> (T, N, C), next cache."""
        x = F.glu(self.in_proj(x), dim=2).permute(1, 2, 0)
        x = x.masked_fill(pad_mask.unsqueeze(1), 0.0)
        x, cache = self.depthwise_conv.streaming_forward(x, cache)
        return self.out_proj(x.permute(2, 0, 1)), cache

"""The convolution module of the Zipformer (Yao et al. 2023, section 3.2)."""

from typing import TYPE_CHECKING, Final, List, Optional, Protocol, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.draws import Chance
from asr_core.nn.scaling import ActivationDropoutAndLinear, Balancer, ScheduledFloat, Whiten, whitening_limit
from asr_core.ops import chunk_causal
from asr_core.ops.depthwise import depthwise_conv1d
from asr_core.ops.gate import gate


class ChunkCausalDepthwiseConv1d(nn.Module):
    """A causal convolution over all frames plus a symmetric one within each chunk.

    A streaming model knows the whole of the current chunk, so the second convolution sees to both
    sides there and zeros elsewhere. Near a chunk's edges it misses part of its input; a learned
    scale makes up for that. A sequence that is shorter than its chunk has the edge at its own end.

    Args:
      channels: number C of channels.
      kernel_size: K, odd. The causal kernel has (K + 1) / 2 taps, the other one K.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel size must be odd, got {kernel_size}")
        self.kernel_size = kernel_size
        # change of the chunk-wise part's scale near the left [0] and right [1] edge of a chunk
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel_size))
        self.causal_conv = nn.Conv1d(channels, channels, (kernel_size + 1) // 2, groups=channels)
        self.chunkwise_conv = nn.Conv1d(
            channels, channels, kernel_size, groups=channels, padding=kernel_size // 2
        )
        if self.causal_conv.bias is not None:
            nn.init.uniform_(self.causal_conv.bias, -0.1, 0.1)

    def forward(self, x: Tensor, chunk_size: int = -1, lens: Optional[Tensor] = None) -> Tensor:
        """Convolve whole sequences.

        Args:
          x: (T, N, C), zero at padding.
          chunk_size: frames per chunk; a negative one, or one above T, takes the sequence as one
            chunk.
          lens: (N,) frames of each sequence; None: all have T, or none is shorter than a chunk.

        Returns:
          (T, N, C)
        """
        seq_len, pad = x.size(0), self.kernel_size // 2
        if chunk_size < 0 or chunk_size > seq_len:
            chunk_size = seq_len
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            causal, chunkwise, edges = self.causal_conv, self.chunkwise_conv, self.chunkwise_conv_scale
            if causal.bias is not None and chunkwise.bias is not None and chunk_causal.usable(x, edges):
                weights = (causal.weight, causal.bias, chunkwise.weight, chunkwise.bias, edges)
                return chunk_causal.chunk_causal_conv1d(x, *weights, chunk_size, lens)
        x_causal = depthwise_conv1d(x, self.causal_conv.weight, self.causal_conv.bias, pad, 0)
        x_chunk = depthwise_conv1d(x, self.chunkwise_conv.weight, self.chunkwise_conv.bias, pad, chunk_size)
        num_chunks = (seq_len + chunk_size - 1) // chunk_size
        if lens is None:
            scale = self._chunk_scale(chunk_size).t().repeat(num_chunks, 1)[:seq_len].unsqueeze(1)
        else:
            scale = self._scales(chunk_size, seq_len, lens)
        return torch.addcmul(x_causal, x_chunk, scale)

    def _scales(self, chunk_size: int, seq_len: int, lens: Tensor) -> Tensor:
        """Return the chunk-wise convolution's scales (T, N, C) of sequences of which some may be
        shorter than a chunk.
        """
        k = self.kernel_size
        frame = torch.arange(seq_len, device=lens.device) % chunk_size  # (T,), within its chunk
        to_end = frame.unsqueeze(1) - (lens.clamp(max=chunk_size) - k)  # (T, N), tap of the right edge
        edges = F.pad(self.chunkwise_conv_scale, (0, 1)).transpose(1, 2)  # (2, K + 1, C), zero at K
        inner = (to_end < 0) | (to_end >= k)
        at_right = F.embedding(to_end.masked_fill(inner, k), edges[1], padding_idx=k)
        at_left = F.embedding(frame.clamp(max=k), edges[0], padding_idx=k)
        return at_right + (1.0 + at_left).unsqueeze(1)

    def _chunk_scale(self, chunk_size: int) -> Tensor:
        """Return the chunk-wise convolution's scale (C, chunk_size) at each frame of a chunk."""
        left, right = self.chunkwise_conv_scale[0], self.chunkwise_conv_scale[1]
        if chunk_size < self.kernel_size:
            return 1.0 + (left[:, :chunk_size] + right[:, self.kernel_size - chunk_size :])
        pad = chunk_size - self.kernel_size
        return 1.0 + (F.pad(left, (0, pad)) + F.pad(right, (pad, 0)))

    def streaming_forward(self, x: Tensor, cache: Tensor) -> Tuple[Tensor, Tensor]:
        """Convolve one chunk.

        Args:
          x: (N, C, T).
          cache: (N, C, K // 2) frames before the chunk.

        Returns:
          (N, C, T) and the next cache.
        """
        seq_len = x.size(2)
        whole = torch.cat([cache, x], dim=2)  # (N, C, K // 2 + T)
        x = self.causal_conv(whole) + self.chunkwise_conv(x) * self._chunk_scale(seq_len)
        return x, whole[..., whole.size(2) - self.kernel_size // 2 :]


class _DepthwiseConv(Protocol):
    """The interface of a Conv1d and of a :class:`ChunkCausalDepthwiseConv1d`, each in its mode."""

    weight: Tensor
    bias: Optional[Tensor]

    def __call__(self, x: Tensor, chunk_size: int = -1, lens: Optional[Tensor] = None) -> Tensor: ...

    def streaming_forward(self, x: Tensor, cache: Tensor) -> Tuple[Tensor, Tensor]: ...


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution over time, SwooshR and projection.

    Args:
      channels: width C of input and output.
      kernel_size: number K of taps, odd.
      causal: use the chunk-causal convolution, for streaming.
    """

    if TYPE_CHECKING:
        depthwise_conv: _DepthwiseConv
    causal: Final[bool]  # a constant, so that scripting leaves the other branch out

    def __init__(self, channels: int, kernel_size: int, causal: bool) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel size must be odd, got {kernel_size}")
        self.causal = causal
        self.pad = kernel_size // 2
        self.in_proj = nn.Linear(channels, 2 * channels)
        # Acts on the input s of the gate sigmoid(s). The lower bounds keep a channel from staying
        # shut or half open; the upper bound of the magnitude, tighter at first, from saturating the
        # gate, which would then have sparse gradients and learn little.
        self.balancer1 = Balancer(
            channels,
            min_positive=ScheduledFloat((0.0, 0.05), (8000.0, 0.025)),
            max_positive=1.0,
            min_abs=1.5,
            max_abs=ScheduledFloat((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        conv: nn.Module
        if causal:
            conv = ChunkCausalDepthwiseConv1d(channels, kernel_size)
        else:
            conv = nn.Conv1d(channels, channels, kernel_size, groups=channels, padding=self.pad)
        self.depthwise_conv = conv  # type: ignore[assignment]  # either has what its mode uses
        # Acts before SwooshR, which is almost flat for strongly negative inputs: some values of
        # each channel stay positive, and the magnitude stays large enough (more so later) for the
        # activation to bend.
        self.balancer2 = Balancer(
            channels,
            min_positive=ScheduledFloat((0.0, 0.1), (8000.0, 0.05)),
            max_positive=1.0,
            min_abs=ScheduledFloat((0.0, 0.2), (20000.0, 0.5)),
            max_abs=10.0,
        )
        self.whiten = Whiten(1, whitening_limit=whitening_limit(7.5), prob=(0.025, 0.25), grad_scale=0.01)
        # a small initial scale makes each residual branch start close to zero
        self.out_proj = ActivationDropoutAndLinear(
            channels, channels, activation="SwooshR", initial_scale=0.05
        )

    def forward(
        self,
        x: Tensor,
        pad_mask: Optional[Tensor] = None,
        chunk_size: int = -1,
        lens: Optional[Tensor] = None,
    ) -> Tensor:
        """Convolve whole sequences.

        Args:
          x: (T, N, C).
          pad_mask: (N, T) boolean, True at padding.
          chunk_size: frames per chunk of a causal module; -1 takes the sequence as one chunk.
          lens: (N,) frames of each sequence, if any may be shorter than its chunk.

        Returns:
          (T, N, C)
        """
        x = self._gate(self.in_proj(x), None if pad_mask is None else pad_mask.t())
        if not self.causal:
            conv = self.depthwise_conv
            x = depthwise_conv1d(x, conv.weight, conv.bias, self.pad, 0)
        elif torch.jit.is_scripting() or torch.jit.is_tracing():
            x = self.depthwise_conv(x, -1, lens)
        else:
            x = self.depthwise_conv(x, chunk_size, lens)
        return self.out_proj(self.whiten(self.balancer2(x)))

    def chances(self) -> List[Chance]:
        """Return the modules that decide by chance, in the order in which they act."""
        return [self.balancer1, self.balancer2, self.whiten, self.out_proj]

    def _gate(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Gate the first half of the channels by the second: (T, N, 2 C) -> (T, N, C).

        The result is zero at padding, where the mask (T, N) is True.
        """
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return gate(x, pad_mask)
        if self.training and self.balancer1.drawn(x):
            x, s = x.chunk(2, dim=2)
            x = x * torch.sigmoid(self.balancer1.act(s))
            return x if pad_mask is None else x.masked_fill(pad_mask.unsqueeze(2), 0.0)
        return gate(x, pad_mask)

    def streaming_forward(self, x: Tensor, cache: Tensor, pad_mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Convolve one chunk; the module must be causal.

        Args:
          x: (T, N, C).
          cache: (N, C, K // 2) frames before the chunk.
          pad_mask: (N, T) boolean, True at padding.

        Returns:
          (T, N, C) and the next cache.
        """
        x = F.glu(self.in_proj(x), dim=2).permute(1, 2, 0)  # (N, C, T)
        x = x.masked_fill(pad_mask.unsqueeze(1), 0.0)
        x, cache = self.depthwise_conv.streaming_forward(x, cache)
        return self.out_proj(x.permute(2, 0, 1)), cache

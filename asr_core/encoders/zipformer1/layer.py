"""One layer of the first Zipformer (icefall's ``pruned_transducer_stateless7_streaming``)."""

import random
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.encoders.zipformer1.attention import RelPositionMultiheadAttention
from asr_core.encoders.zipformer1.modules import ActivationBalancer, BasicNorm, CumulativeMean
from asr_core.nn.activations import DoubleSwish
from asr_core.nn.scaling import ScaledConv1d, ScaledLinear, ScheduledFloat, Whiten
from asr_core.ops.depthwise import depthwise_conv1d
from asr_core.ops.gate import gate


class FeedforwardModule(nn.Module):
    """Linear, DoubleSwish, dropout, linear.

    Args:
      embed_dim: width C of input and output.
      feedforward_dim: width inside.
      dropout: dropout rate.
    """

    def __init__(self, embed_dim: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(embed_dim, feedforward_dim)
        self.balancer = ActivationBalancer(feedforward_dim, max_abs=10.0, min_prob=0.25)
        self.activation = DoubleSwish()
        self.dropout = nn.Dropout(dropout)
        # a small initial scale makes each residual branch start close to zero
        self.out_proj = ScaledLinear(feedforward_dim, embed_dim, initial_scale=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each frame: x (T, N, C) -> (T, N, C)."""
        return self.out_proj(self.dropout(self.activation(self.balancer(self.in_proj(x)))))


class CausalConvolutionModule(nn.Module):
    """Gate, depthwise convolution over K frames up to the current one, DoubleSwish and projection.

    Args:
      channels: width C of input and output.
      kernel_size: number K of taps.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.left = kernel_size - 1
        self.pointwise_conv1 = nn.Conv1d(channels, 2 * channels, 1)
        # bounds of the magnitude before the gate: a saturated sigmoid has sparse gradients
        self.deriv_balancer1 = ActivationBalancer(2 * channels, max_abs=10.0, max_positive=1.0)
        self.depthwise_conv = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        self.deriv_balancer2 = ActivationBalancer(channels, max_abs=20.0, max_positive=1.0)
        self.activation = DoubleSwish()
        self.pointwise_conv2 = ScaledConv1d(channels, channels, 1, initial_scale=0.05)

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
        """Convolve whole sequences.

        Args:
          x: (T, N, C).
          pad_mask: (N, T) boolean, True at padding.

        Returns:
          (T, N, C)
        """
        x = depthwise_conv1d(
            self._gated(x, pad_mask), self.depthwise_conv.weight, self.depthwise_conv.bias, self.left
        )
        return self._finish(x)

    def streaming_forward(self, x: Tensor, cache: Tensor, pad_mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Convolve one chunk.

        Args:
          x: (T, N, C).
          cache: (N, C, K - 1) gated frames before the chunk.
          pad_mask: (N, T) boolean, True at padding.

        Returns:
          (T, N, C) and the next cache.
        """
        x = torch.cat([cache, self._gated(x, pad_mask).permute(1, 2, 0)], dim=2)  # (N, C, K - 1 + T)
        return self._finish(self.depthwise_conv(x).permute(2, 0, 1)), x[:, :, x.size(2) - self.left :]

    def _gated(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Return the input (T, N, C) of the convolution, zero at padding."""
        x = F.linear(x, self.pointwise_conv1.weight.squeeze(2), self.pointwise_conv1.bias)
        return gate(self.deriv_balancer1(x), None if pad_mask is None else pad_mask.transpose(0, 1))

    def _finish(self, x: Tensor) -> Tensor:
        """Apply what follows the convolution to (T, N, C)."""
        x = self.activation(self.deriv_balancer2(x))
        return F.linear(x, self.pointwise_conv2.weight.squeeze(2), self.pointwise_conv2.bias)


class ZipformerEncoderLayer(nn.Module):
    """Feed-forward modules, a mean over the past, attention, two convolutions, norm and bypass.

    Args:
      embed_dim: width C.
      attention_dim, num_heads, pos_dim: sizes of the attention.
      feedforward_dim: width inside the feed-forward modules.
      cnn_module_kernel: taps of the convolutions.
      dropout: dropout rate of the feed-forward modules.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        attention_dim: int,
        num_heads: int,
        pos_dim: int,
        feedforward_dim: int,
        cnn_module_kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        # Modules that mix frames are sometimes left out of the first 2000 batches, so that training
        # begins with those that do not.
        self.module_skip_rate = ScheduledFloat((0.0, 0.2), (2000.0, 0.0))
        # The bypass must not pass the input only: the layer's share is at least 0.75 at
        # first, which drives all layers to learn, and 0.25 after 20000 batches.
        self.bypass_min = ScheduledFloat((0.0, 0.75), (20000.0, 0.25))
        self.bypass_scale = nn.Parameter(torch.tensor(0.5))
        self.self_attn = RelPositionMultiheadAttention(embed_dim, attention_dim, num_heads, pos_dim)
        self.pooling = CumulativeMean(embed_dim)
        self.feed_forward1 = FeedforwardModule(embed_dim, feedforward_dim, dropout)
        self.feed_forward2 = FeedforwardModule(embed_dim, feedforward_dim, dropout)
        self.feed_forward3 = FeedforwardModule(embed_dim, feedforward_dim, dropout)
        self.conv_module1 = CausalConvolutionModule(embed_dim, cnn_module_kernel)
        self.conv_module2 = CausalConvolutionModule(embed_dim, cnn_module_kernel)
        self.norm_final = BasicNorm()
        # channels stay zero-centred before the norm: an offset would dominate the root mean square
        self.balancer = ActivationBalancer(embed_dim, min_positive=0.45, max_positive=0.55, max_abs=6.0)
        self.whiten = Whiten(1, whitening_limit=5.0, prob=(0.025, 0.25), grad_scale=0.01)

    def forward(
        self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None, pad_mask: Optional[Tensor] = None
    ) -> Tensor:
        """Encode whole sequences.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, C).
          mask: boolean (N or 1, T or 1, T), True at keys that must not be seen.
          pad_mask: boolean (N, T), True at padding.

        Returns:
          (T, N, C)
        """
        x_orig = x
        use_pooling, use_attention, use_conv1, use_conv2 = self._draw_modules()
        x = x + self.feed_forward1(x)
        if use_pooling:
            x = x + self.pooling(x)
        weights: Optional[Tensor] = None
        if use_attention:
            y, weights = self.self_attn(x, pos_emb, mask)
            x = x + y
        if use_conv1:
            x = x + self.conv_module1(x, pad_mask)
        x = x + self.feed_forward2(x)
        if weights is not None:
            x = x + self.self_attn.forward2(x, weights)
        if use_conv2:
            x = x + self.conv_module2(x, pad_mask)
        x = x + self.feed_forward3(x)
        x = self.norm_final(self.balancer(x))
        return self.whiten(torch.lerp(x_orig, x.to(x_orig.dtype), self._bypass_scale().to(x_orig.dtype)))

    def _draw_modules(self) -> Tuple[bool, bool, bool, bool]:
        """Draw which of pooling, attention and the two convolutions are used."""
        if torch.jit.is_scripting() or torch.jit.is_tracing() or not self.training:
            return True, True, True, True
        rate = float(self.module_skip_rate)
        return (
            random.random() >= rate,
            random.random() >= rate,
            random.random() >= rate,
            random.random() >= rate,
        )

    def _bypass_scale(self) -> Tensor:
        """Return the layer's share of the output, a scalar, limited in a tenth of training."""
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            if random.random() < 0.1:
                return self.bypass_scale.clamp(min=float(self.bypass_min), max=1.0)
        return self.bypass_scale

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, states: List[Tensor], mask: Tensor, pad_mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + L, C).
          states: len (N,), avg (N, C), key (L, N, A), val and val2 (L, N, A / 2), conv1 and conv2
            (N, C, K - 1).
          mask: boolean (N, 1, L + T), True at keys that must not be seen.
          pad_mask: boolean (N, T), True at padding.

        Returns:
          (T, N, C) and the next states.
        """
        x_orig = x
        x = x + self.feed_forward1(x)
        y, length, avg = self.pooling.streaming_forward(x, states[0], states[1])
        x = x + y
        y, weights, key, val = self.self_attn.streaming_forward(x, pos_emb, states[2], states[3], mask)
        x = x + y
        y, conv1 = self.conv_module1.streaming_forward(x, states[5], pad_mask)
        x = x + y
        x = x + self.feed_forward2(x)
        y, val2 = self.self_attn.streaming_forward2(x, weights, states[4])
        x = x + y
        y, conv2 = self.conv_module2.streaming_forward(x, states[6], pad_mask)
        x = x + y
        x = x + self.feed_forward3(x)
        x = torch.lerp(x_orig, self.norm_final(x), self.bypass_scale)
        return x, [length, avg, key, val, val2, conv1, conv2]

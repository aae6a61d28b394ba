"""The modules of a Conformer layer besides attention (Gulati et al. 2020, sections 2.2 and 2.3)."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.activations import ACTIVATIONS
from asr_core.nn.batch_norm import MaskedBatchNorm1d
from asr_core.ops.depthwise import depthwise_conv1d, depthwise_conv1d_plain
from asr_core.ops.gate import gate


class ConformerFeedForward(nn.Sequential):
    """Layer norm, linear, activation, dropout, linear, dropout: (T, N, C) -> (T, N, C).

    Args:
      embed_dim: width C of input and output.
      feedforward_dim: width inside.
      dropout: rate of both dropouts.
      activation: a key of :data:`asr_core.nn.activations.ACTIVATIONS`.
      norm_eps: epsilon of the layer norm.
    """

    def __init__(
        self,
        embed_dim: int,
        feedforward_dim: int,
        *,
        dropout: float,
        activation: str = "silu",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(
            nn.LayerNorm(embed_dim, eps=norm_eps),
            nn.Linear(embed_dim, feedforward_dim),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(feedforward_dim, embed_dim),
            nn.Dropout(dropout),
        )


class ConformerConvolution(nn.Module):
    """Layer norm, gate, depthwise convolution over time, norm, activation, linear, dropout.

    An even kernel of K frames sees ``K / 2 - 1`` frames before and ``K / 2`` after; a causal one K
    - 1 before.

    Args:
      embed_dim: width C of input and output.
      kernel: taps K of the depthwise convolution.
      norm: norm of its output, "batch" (over valid frames only) or "layer".
      causal: see no later frames.
      dropout: rate of the output's dropout.
      activation: a key of :data:`asr_core.nn.activations.ACTIVATIONS`.
      norm_eps: epsilon of the norms.
      batch_norm_decay: weight of the past in the running statistics.
    """

    def __init__(
        self,
        embed_dim: int,
        kernel: int,
        *,
        norm: str = "batch",
        causal: bool = False,
        dropout: float = 0.1,
        activation: str = "silu",
        norm_eps: float = 1e-5,
        batch_norm_decay: float = 0.999,
    ) -> None:
        super().__init__()
        self.cache_len = kernel - 1
        self.pad = kernel - 1 if causal else (kernel - 1) // 2
        self.norm_in = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.in_proj = nn.Linear(embed_dim, 2 * embed_dim)
        self.depthwise_conv = nn.Conv1d(embed_dim, embed_dim, kernel, groups=embed_dim, bias=False)
        self.batch_norm: Optional[nn.Module] = None
        self.layer_norm: Optional[nn.Module] = None
        if norm == "batch":
            self.batch_norm = MaskedBatchNorm1d(embed_dim, eps=norm_eps, momentum=1.0 - batch_norm_decay)
        else:
            self.layer_norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.activation = ACTIVATIONS[activation]()
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
        """Convolve whole sequences.

        Args:
          x: (T, N, C).
          pad_mask: (T, N) boolean, True at padding.

        Returns:
          (T, N, C)
        """
        x = depthwise_conv1d(self._gated(x, pad_mask), self.depthwise_conv.weight, None, self.pad)
        return self._finish(x, pad_mask)

    def streaming_forward(self, x: Tensor, cache: Tensor, pad_mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Convolve one chunk; the module must be causal.

        Args:
          x: (T, N, C).
          cache: (K - 1, N, C) gated frames before the chunk.
          pad_mask: (T, N) boolean, True at padding.

        Returns:
          (T, N, C) and the next cache.
        """
        num_frames = x.size(0)
        x = torch.cat([cache, self._gated(x, pad_mask)], dim=0)  # (K - 1 + T, N, C)
        y = depthwise_conv1d_plain(x, self.depthwise_conv.weight, None, self.pad, 0)[self.cache_len :]
        return self._finish(y, pad_mask), x[num_frames:]

    def _gated(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Return the input (T, N, C) of the convolution, zero at padding."""
        return gate(self.in_proj(self.norm_in(x)), pad_mask)

    def _finish(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Apply what follows the convolution to (T, N, C)."""
        if self.batch_norm is not None:
            x = self.batch_norm(x, pad_mask)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return self.dropout(self.out_proj(self.activation(x)))

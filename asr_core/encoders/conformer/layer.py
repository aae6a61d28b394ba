"""One layer of the Conformer (Gulati et al. 2020, https://arxiv.org/abs/2005.08100, figure 1)."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.conformer.attention import MultiheadAttention
from asr_core.encoders.conformer.modules import ConformerConvolution, ConformerFeedForward

LAYER_ORDERS = ("mhsa_before_lconv", "lconv_before_mhsa", "lconv_before_ff")


class ConformerLayer(nn.Module):
    """Half a feed-forward module, attention, convolution, the other half, layer norm.

    Args:
      embed_dim: width C.
      attention: the attention.
      convolution: the convolution.
      feedforward_dim: width inside the feed-forward modules.
      dropout: of the feed-forward modules.
      layer_drop: probability per sequence of leaving the layer out in training.
      layer_order: where the convolution stands: after the attention, before it, or before the first feed-forward module.
      activation: see :data:`asr_core.encoders.conformer.modules.ACTIVATIONS`.
      norm_eps: of the layer norms.
      attention_dropout: of the attention's output; None: as ``dropout``.
    """

    def __init__(
        self,
        embed_dim: int,
        attention: MultiheadAttention,
        convolution: ConformerConvolution,
        feedforward_dim: int,
        dropout: float = 0.1,
        layer_drop: float = 0.0,
        layer_order: str = "mhsa_before_lconv",
        activation: str = "silu",
        norm_eps: float = 1e-5,
        attention_dropout: Optional[float] = None,
    ) -> None:
        super().__init__()
        if layer_order not in LAYER_ORDERS:
            raise ValueError(f"layer_order is one of {', '.join(LAYER_ORDERS)}, not {layer_order!r}")
        self.layer_order = layer_order
        self.layer_drop = layer_drop
        self.feed_forward1 = ConformerFeedForward(embed_dim, feedforward_dim, dropout, activation, norm_eps)
        self.norm_self_attn = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.self_attn = attention
        self.dropout = nn.Dropout(dropout if attention_dropout is None else attention_dropout)
        self.conv_module = convolution
        self.feed_forward2 = ConformerFeedForward(embed_dim, feedforward_dim, dropout, activation, norm_eps)
        self.norm_final = nn.LayerNorm(embed_dim, eps=norm_eps)

    def forward(
        self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None, pad_mask: Optional[Tensor] = None
    ) -> Tensor:
        """One layer.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, C), if the attention wants it.
          mask: boolean (N or 1, T or 1, T), True at keys that must not be seen.
          pad_mask: (T, N) boolean, True at padding, which becomes 0.
        """
        original = x
        if self.layer_order == "lconv_before_ff":
            x = x + self.conv_module(x, pad_mask)
        x = x + 0.5 * self.feed_forward1(x)
        if self.layer_order == "lconv_before_mhsa":
            x = x + self.conv_module(x, pad_mask)
        x = x + self.dropout(self.self_attn(self.norm_self_attn(x), pos_emb, mask))
        if self.layer_order == "mhsa_before_lconv":
            x = x + self.conv_module(x, pad_mask)
        x = self._finish(x, pad_mask)
        if (
            not torch.jit.is_scripting()
            and not torch.jit.is_tracing()
            and self.training
            and self.layer_drop > 0.0
        ):
            x = torch.where(torch.rand((x.size(1), 1), device=x.device) < self.layer_drop, original, x)
        return x

    def _finish(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        x = self.norm_final(x + 0.5 * self.feed_forward2(x))
        return x if pad_mask is None else x.masked_fill(pad_mask.unsqueeze(-1), 0.0)

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, states: List[Tensor], mask: Tensor, pad_mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """One chunk.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + left, C), if the attention wants it.
          states: cached keys and values (left, N, C), cached frames of the convolution (kernel - 1, N, C).
          mask: (N, 1 or T, left + T) boolean, True at keys that must not be seen.
          pad_mask: (T, N) boolean, True at padding.

        Returns:
          (T, N, C) and the next states.
        """
        cached_key, cached_value, cached_conv = states[0], states[1], states[2]
        if self.layer_order == "lconv_before_ff":
            y, cached_conv = self.conv_module.streaming_forward(x, cached_conv, pad_mask)
            x = x + y
        x = x + 0.5 * self.feed_forward1(x)
        if self.layer_order == "lconv_before_mhsa":
            y, cached_conv = self.conv_module.streaming_forward(x, cached_conv, pad_mask)
            x = x + y
        y, cached_key, cached_value = self.self_attn.streaming_forward(
            self.norm_self_attn(x), pos_emb, cached_key, cached_value, mask
        )
        x = x + y
        if self.layer_order == "mhsa_before_lconv":
            y, cached_conv = self.conv_module.streaming_forward(x, cached_conv, pad_mask)
            x = x + y
        return self._finish(x, pad_mask), [cached_key, cached_value, cached_conv]

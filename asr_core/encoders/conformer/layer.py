"""One layer of the Conformer (Gulati et al. 2020, https://arxiv.org/abs/2005.08100, figure 1)."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.conformer.attention import (
    KeyShiftAttention,
    MultiheadAttention,
    RelPositionMultiheadAttention,
)
from asr_core.encoders.conformer.modules import ConformerConvolution, ConformerFeedForward
from asr_core.encoders.conformer.options import ConformerOptions


def build_attention(config: ConformerOptions) -> MultiheadAttention:
    """Build the self-attention with the positional encoding that ``config.position`` names."""
    dropout = config.rate(config.attention_dropout)
    if config.position == "xl":
        return RelPositionMultiheadAttention(
            config.encoder_dim,
            config.nhead,
            dropout=dropout,
            per_dim_scale=config.per_dim_scale,
            scale_bias=config.scale_bias,
        )
    if config.position == "key_shift":
        return KeyShiftAttention(
            config.encoder_dim,
            config.nhead,
            dropout=dropout,
            per_dim_scale=config.per_dim_scale,
            clip=config.position_clip,
        )
    return MultiheadAttention(
        config.encoder_dim, config.nhead, dropout=dropout, per_dim_scale=config.per_dim_scale
    )


class ConformerLayer(nn.Module):
    """Half a feed-forward module, attention, convolution, the other half, layer norm.

    Args:
      config: the encoder's configuration; its width is called C below, its kernel K.
    """

    compiled = "always"

    def __init__(self, config: ConformerOptions) -> None:
        super().__init__()
        dim, norm_eps = config.encoder_dim, config.norm_eps
        self.layer_order = config.layer_order
        self.layer_drop = config.layer_drop
        attention = build_attention(config)
        convolution = ConformerConvolution(
            dim,
            config.cnn_module_kernel,
            norm=config.conv_norm,
            causal=config.causal,
            dropout=config.rate(config.conv_dropout),
            activation=config.activation,
            norm_eps=norm_eps,
            batch_norm_decay=config.batch_norm_decay,
        )
        # registered in this order, in which optimizer states refer to parameters
        self.feed_forward1 = self._feed_forward(config)
        self.norm_self_attn = nn.LayerNorm(dim, eps=norm_eps)
        self.self_attn = attention
        self.dropout = nn.Dropout(config.rate(config.attention_dropout))
        self.conv_module = convolution
        self.feed_forward2 = self._feed_forward(config)
        self.norm_final = nn.LayerNorm(dim, eps=norm_eps)

    @staticmethod
    def _feed_forward(config: ConformerOptions) -> ConformerFeedForward:
        return ConformerFeedForward(
            config.encoder_dim,
            config.feedforward_dim,
            dropout=config.rate(config.ff_dropout),
            activation=config.activation,
            norm_eps=config.norm_eps,
        )

    def forward(
        self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None, pad_mask: Optional[Tensor] = None
    ) -> Tensor:
        """Encode whole sequences.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, C), if the attention uses it.
          mask: boolean (N or 1, T or 1, T), True at keys that must not be seen.
          pad_mask: (T, N) boolean, True at padding, where the output is 0.

        Returns:
          (T, N, C)
        """
        original = x
        if self.layer_order == "lconv_before_ff":
            x = x + self.conv_module(x, pad_mask)
        # two halves of a feed-forward module around the attention, as in Macaron-Net (section 2.4)
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
            skipped = torch.rand((x.size(1), 1), device=x.device) < self.layer_drop  # (N, 1)
            x = torch.where(skipped, original, x)
        return x

    def _finish(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Apply the second half of the feed-forward module and the norm to (T, N, C)."""
        x = self.norm_final(x + 0.5 * self.feed_forward2(x))
        return x if pad_mask is None else x.masked_fill(pad_mask.unsqueeze(-1), 0.0)

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, states: List[Tensor], mask: Tensor, pad_mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + left, C), if the attention uses it.
          states: cached keys and values (left, N, C), cached frames of the convolution (K - 1, N,
            C).
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

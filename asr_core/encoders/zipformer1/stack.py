"""A stack of layers of the first Zipformer at one frame rate."""

import random
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.zipformer1.attention import RelPositionalEncoding
from asr_core.encoders.zipformer1.layer import ZipformerEncoderLayer
from asr_core.encoders.zipformer1.modules import AttentionDownsample, BiasedUpsample, WeightedSum
from asr_core.nn.masks import merge_masks
from asr_core.nn.module_list import module_list
from asr_core.nn.scaling import ScheduledFloat


class ZipformerEncoder(nn.Module):
    """Layers of one width.

    Args:
      layers: the layers.
      embed_dim: their width C.
      dropout: dropout rate of the positional encoding.
      warmup_begin, warmup_end: batch counts between which the layers come into nearly full use, one
        after another.
    """

    def __init__(
        self,
        layers: List[ZipformerEncoderLayer],
        embed_dim: int,
        dropout: float,
        warmup_begin: float,
        warmup_end: float,
    ) -> None:
        super().__init__()
        self.encoder_pos = RelPositionalEncoding(embed_dim, dropout)
        self.layers = module_list(layers)
        share = (warmup_end - warmup_begin) / len(layers)
        # Half of the batches skip a layer until its turn comes, so the stack trains from the input
        # upwards.
        begins = [warmup_begin + i * share for i in range(len(layers))]
        self.layer_skip_rates = module_list(
            [ScheduledFloat((begin, 0.5), (begin + share, 0.05)) for begin in begins]
        )

    def forward(
        self,
        x: Tensor,
        attn_mask: Optional[Tensor] = None,
        pad_mask: Optional[Tensor] = None,
        feature_mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Apply all layers to whole sequences; training skips some.

        Args:
          x: (T, N, C).
          attn_mask: (T, T) boolean, True at keys that must not be seen.
          pad_mask: (N, T) boolean, True at padding.
          feature_mask: (T, N, C) multiplied onto input and outputs, or None.

        Returns:
          (T, N, C)
        """
        pos_emb = self.encoder_pos(x)
        mask = merge_masks(attn_mask, pad_mask)
        used = self._draw_layers()
        if feature_mask is not None:
            x = x * feature_mask
        for i, layer in enumerate(self.layers):
            if used[i]:
                x = layer(x, pos_emb, mask, pad_mask)
                if feature_mask is not None:
                    x = x * feature_mask
        return x

    def _draw_layers(self) -> List[bool]:
        """Draw which layers are used."""
        used = [True for _ in self.layers]
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            rates = [float(rate) for rate in self.layer_skip_rates]
            used = [random.random() >= rate for rate in rates]
        return used

    def streaming_forward(
        self, x: Tensor, states: List[Tensor], left_context_len: int, mask: Tensor, pad_mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Apply all layers to one chunk of each stream.

        Args:
          x: (T, N, C).
          states: seven, each of all layers: those of
            :meth:`ZipformerEncoderLayer.streaming_forward`, stacked.
          left_context_len: number L of frames before the chunk.
          mask: (N, L + T) boolean, True at keys that must not be seen.
          pad_mask: (N, T) boolean, True at padding.

        Returns:
          (T, N, C) and the next states.
        """
        pos_emb = self.encoder_pos(x, left_context_len)
        new_states: List[List[Tensor]] = [[] for _ in states]
        for i, layer in enumerate(self.layers):
            x, layer_states = layer.streaming_forward(
                x, pos_emb, [state[i] for state in states], mask.unsqueeze(1), pad_mask
            )
            for k, state in enumerate(layer_states):
                new_states[k].append(state)
        return x, [torch.stack(of_layers, dim=0) for of_layers in new_states]


class DownsampledZipformerEncoder(nn.Module):
    """A stack at a lower frame rate than its input, to which it is added with a learned weight.

    Args:
      encoder: the stack.
      input_dim, output_dim: widths C of the input and C' of the stack.
      downsample: factor by which the rate is lower.
    """

    def __init__(self, encoder: ZipformerEncoder, input_dim: int, output_dim: int, downsample: int) -> None:
        super().__init__()
        self.downsample_factor = downsample
        self.downsample = AttentionDownsample(input_dim, output_dim, downsample)
        self.encoder = encoder
        self.upsample = BiasedUpsample(output_dim, downsample)
        self.out_combiner = WeightedSum()

    def forward(
        self,
        x: Tensor,
        attn_mask: Optional[Tensor],
        pad_mask: Optional[Tensor],
        feature_mask: Optional[Tensor],
    ) -> Tensor:
        """Encode x (T, N, C) as :meth:`ZipformerEncoder.forward` does: (T, N, C').

        ``attn_mask`` and ``pad_mask`` are at the input's rate, ``feature_mask`` is at the stack's.
        """
        ds = self.downsample_factor
        y = self.downsample(x, pad_mask)  # (ceil(T / ds), N, C')
        if attn_mask is not None:
            attn_mask = attn_mask[::ds, ::ds]
        if pad_mask is not None:
            pad_mask = pad_mask[:, ::ds]
        y = self.encoder(y, attn_mask, pad_mask, feature_mask)
        return self.out_combiner(x, self.upsample(y)[: x.size(0)])

    def streaming_forward(
        self, x: Tensor, states: List[Tensor], left_context_len: int, mask: Tensor, pad_mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk x (T, N, C) of each stream.

        See :meth:`ZipformerEncoder.streaming_forward`; left context and masks are at the input's
        rate.
        """
        ds = self.downsample_factor
        y = self.downsample(x, pad_mask)
        y, new_states = self.encoder.streaming_forward(
            y, states, left_context_len // ds, mask[:, ::ds], pad_mask[:, ::ds]
        )
        return self.out_combiner(x, self.upsample(y)[: x.size(0)]), new_states

"""A stack of Zipformer layers at one frame rate (Yao et al. 2023, section 3.1)."""

from typing import List, Optional, Tuple

from torch import Tensor, nn

from asr_core.encoders.zipformer.attention import CompactRelPositionalEncoding
from asr_core.encoders.zipformer.layer import Zipformer2EncoderLayer
from asr_core.nn.bypass import BypassModule, SimpleDownsample, SimpleUpsample
from asr_core.nn.masks import merge_masks
from asr_core.nn.module_list import module_list
from asr_core.nn.scaling import ScheduledFloat


class Zipformer2Encoder(nn.Module):
    """Layers of one width.

    Args:
      layers: the layers.
      pos_dim: width of the positional encoding.
      warmup_begin, warmup_end: batch counts between which the layers come into full use, one after
        another.
      final_layerdrop_rate: probability per sequence of skipping a layer from then on.
    """

    def __init__(
        self,
        layers: List[Zipformer2EncoderLayer],
        pos_dim: int,
        warmup_begin: float,
        warmup_end: float,
        final_layerdrop_rate: float,
    ) -> None:
        super().__init__()
        self.encoder_pos = CompactRelPositionalEncoding(pos_dim, dropout_rate=0.15, length_factor=1.0)
        self.layers = module_list(layers)
        # Half of the sequences bypass a layer until its turn comes, so the stack trains from the
        # input upwards.
        share = (warmup_end - warmup_begin) / len(layers)
        for i, layer in enumerate(layers):
            begin = warmup_begin + i * share
            layer.bypass.skip_rate = ScheduledFloat((begin, 0.5), (begin + share, final_layerdrop_rate))

    def forward(
        self,
        x: Tensor,
        chunk_size: int = -1,
        feature_mask: Optional[Tensor] = None,
        attn_mask: Optional[Tensor] = None,
        pad_mask: Optional[Tensor] = None,
        lens: Optional[Tensor] = None,
    ) -> Tensor:
        """Apply all layers to whole sequences.

        Args:
          x: (T, N, C).
          chunk_size: frames per chunk at this stack's rate, or -1.
          feature_mask: (1, N, C) multiplied onto input and outputs, or None.
          attn_mask: (T, T) boolean, True at keys that must not be seen.
          pad_mask: (N, T) boolean, True at padding.
          lens: (N,) frames of sequences that may end before their chunk, see
            :class:`ChunkCausalDepthwiseConv1d`; or None.

        Returns:
          (T, N, C)
        """
        pos_emb = self.encoder_pos(x)
        mask = merge_masks(attn_mask, pad_mask)
        if feature_mask is not None:
            x = x * feature_mask
        for layer in self.layers:
            x = layer(x, pos_emb, chunk_size, mask, pad_mask, lens)
            if feature_mask is not None:
                x = x * feature_mask
        return x

    def streaming_forward(
        self, x: Tensor, states: List[Tensor], left_context_len: int, mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Apply all layers to one chunk of each stream.

        Args:
          x: (T, N, C).
          states: six of each layer, see :meth:`Zipformer2EncoderLayer.streaming_forward`.
          left_context_len: number L of frames before the chunk.
          mask: (N, L + T) boolean, True at keys that must not be seen.

        Returns:
          (T, N, C) and the next states.
        """
        pos_emb = self.encoder_pos(x, left_context_len)
        new_states: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, layer_states = layer.streaming_forward(
                x, pos_emb, states[i * 6 : (i + 1) * 6], left_context_len, mask
            )
            new_states += layer_states
        return x, new_states


class DownsampledZipformer2Encoder(nn.Module):
    """A stack that runs at a lower frame rate than its input, and is added to it by a bypass.

    Args:
      encoder: the stack.
      dim: its width.
      downsample: factor by which the rate is lower.
      mask_padding: see :class:`~asr_core.encoders.zipformer.encoder.Zipformer2`.
    """

    def __init__(
        self, encoder: Zipformer2Encoder, dim: int, downsample: int, mask_padding: bool = True
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.downsample_factor = downsample
        self.downsample = SimpleDownsample(downsample)
        self.encoder = encoder
        self.upsample = SimpleUpsample(downsample)
        self.out_combiner = BypassModule(dim)

    def forward(
        self,
        x: Tensor,
        chunk_size: int,
        feature_mask: Optional[Tensor],
        attn_mask: Optional[Tensor],
        pad_mask: Optional[Tensor],
        lens: Optional[Tensor],
    ) -> Tensor:
        """Encode x (T, N, C) as :meth:`Zipformer2Encoder.forward` does: (T, N, C).

        Chunk size, masks and lengths are at the input's rate; ``feature_mask`` is constant in time.
        """
        ds = self.downsample_factor
        if attn_mask is not None:
            attn_mask = attn_mask[::ds, ::ds]
        y = self.downsample(x, pad_mask if self.mask_padding else None)  # (ceil(T / ds), N, C)
        if pad_mask is not None:
            pad_mask = pad_mask[:, ::ds].contiguous()
        if lens is not None:
            lens = (lens + ds - 1) // ds
        chunk_size = chunk_size // ds if chunk_size > 0 else -1
        y = self.encoder(y, chunk_size, feature_mask, attn_mask, pad_mask, lens)
        return self.out_combiner(x, self.upsample(y)[: x.size(0)])

    def streaming_forward(
        self, x: Tensor, states: List[Tensor], left_context_len: int, mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk x (T, N, C) of each stream.

        See :meth:`Zipformer2Encoder.streaming_forward`; left context and mask are at the input's
        rate.
        """
        ds = self.downsample_factor
        pad_mask = mask[:, left_context_len:]
        y, new_states = self.encoder.streaming_forward(
            self.downsample(x, pad_mask if self.mask_padding else None),
            states,
            left_context_len // ds,
            mask[:, ::ds],
        )
        return self.out_combiner(x, self.upsample(y)[: x.size(0)]), new_states

"""The Conformer encoder (Gulati et al. 2020, https://arxiv.org/abs/2005.08100)."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.encoders.conformer.attention import (
    KeyShiftAttention,
    MultiheadAttention,
    RelPositionMultiheadAttention,
    relative_positions,
    sinusoids,
)
from asr_core.encoders.conformer.layer import ConformerLayer
from asr_core.encoders.conformer.modules import ConformerConvolution
from asr_core.nn.masks import cached_mask, chunk_mask, future_mask, make_pad_mask, merge_masks
from asr_core.utils.errors import UserError

POSITIONS = ("xl", "key_shift", "none")


class Conformer(ChunkedEncoder):
    """Conformer layers at one frame rate.

    Args:
      encoder_dim: width C of all layers, even.
      num_encoder_layers: their number.
      nhead: attention heads.
      feedforward_dim: width inside the feed-forward modules.
      cnn_module_kernel: taps of the depthwise convolutions, odd or even.
      dropout: of all modules; of some another one in ``ff_dropout``, ``attention_dropout`` (of weights and output), ``conv_dropout``.
      layer_drop: probability per sequence of leaving a layer out in training.
      layer_order: see :class:`~asr_core.encoders.conformer.layer.ConformerLayer`.
      conv_norm: "batch" or "layer", see :class:`~asr_core.encoders.conformer.modules.ConformerConvolution`.
      per_dim_scale, scale_bias: see :class:`~asr_core.encoders.conformer.attention.RelPositionMultiheadAttention`.
      abs_pos_emb: add an encoding of the absolute position to the input.
      activation: "silu", "double_swish" or "relu".
      norm_eps: of all norms.
      batch_norm_decay: weight of the past in the running statistics of batch norms.
      causal, chunk_size, left_context_frames: see :class:`~asr_core.encoders.chunked.ChunkedEncoder`.
      frame_factor: feature frames (100 Hz) per frame of the input.
      position: how attention knows where frames stand: "xl", "key_shift" (see :mod:`asr_core.encoders.conformer.attention`) or "none".
      position_clip: largest offset that "key_shift" tells from larger ones.
      left_only_attention: no frame sees later ones, not even those of its chunk.
      long_skip: add the input to the output of each layer.
    """

    def __init__(
        self,
        encoder_dim: int = 512,
        num_encoder_layers: int = 17,
        nhead: int = 8,
        feedforward_dim: int = 2048,
        cnn_module_kernel: int = 32,
        dropout: float = 0.1,
        layer_drop: float = 0.0,
        layer_order: str = "mhsa_before_lconv",
        conv_norm: str = "batch",
        per_dim_scale: bool = True,
        scale_bias: bool = False,
        abs_pos_emb: bool = True,
        activation: str = "silu",
        norm_eps: float = 1e-5,
        batch_norm_decay: float = 0.999,
        causal: bool = False,
        chunk_size: Tuple[int, ...] = (-1,),
        left_context_frames: Tuple[int, ...] = (-1,),
        frame_factor: int = 4,
        position: str = "xl",
        position_clip: int = 400,
        left_only_attention: bool = False,
        long_skip: bool = False,
        ff_dropout: Optional[float] = None,
        attention_dropout: Optional[float] = None,
        conv_dropout: Optional[float] = None,
    ) -> None:
        super().__init__(causal, chunk_size, left_context_frames)
        if encoder_dim % 2 != 0:
            raise ValueError(f"encoder_dim must be even, got {encoder_dim}")
        if position not in POSITIONS:
            raise ValueError(f"position is one of {', '.join(POSITIONS)}, not {position!r}")
        self.output_downsampling_factor = 1
        self.frame_factor = frame_factor
        self.encoder_dim = (encoder_dim,) * num_encoder_layers
        self.width = encoder_dim
        self.cache_len = cnn_module_kernel - 1
        self.abs_pos_emb = abs_pos_emb
        self.position = position
        self.left_only_attention = left_only_attention
        self.long_skip = long_skip
        rates = [dropout if rate is None else rate for rate in (ff_dropout, attention_dropout, conv_dropout)]

        def attention() -> MultiheadAttention:
            if position == "xl":
                return RelPositionMultiheadAttention(encoder_dim, nhead, rates[1], per_dim_scale, scale_bias)
            if position == "key_shift":
                return KeyShiftAttention(encoder_dim, nhead, rates[1], per_dim_scale, position_clip)
            return MultiheadAttention(encoder_dim, nhead, rates[1], per_dim_scale)

        layers: List[nn.Module] = []
        sizes = (feedforward_dim, rates[0], layer_drop, layer_order, activation, norm_eps, rates[1])
        conv = (cnn_module_kernel, conv_norm, causal, rates[2], activation, norm_eps, batch_norm_decay)
        for _ in range(num_encoder_layers):
            layers.append(
                ConformerLayer(encoder_dim, attention(), ConformerConvolution(encoder_dim, *conv), *sizes)
            )
        self.layers = nn.ModuleList(layers)

    @property
    def output_dim(self) -> int:
        """Width of the output."""
        return self.width

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances: frames (N, T, C), their lengths (N,) -> (N, T, C), zeros at padding, and the lengths."""
        x, x_lens, _ = self.forward_stacks(x, x_lens)
        return x, x_lens

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """As :meth:`forward`, and besides the output of each layer: (T, N, C)."""
        x = x.transpose(0, 1)
        if self.abs_pos_emb:
            x = x + sinusoids(torch.arange(x.size(0), device=x.device), self.width).to(x.dtype).unsqueeze(1)
        pad_mask = make_pad_mask(x_lens.to(x.device), x.size(0))
        attn_mask: Optional[Tensor] = None
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            chunk_size, left_chunks = self._draw_chunk()
            if chunk_size > 0:
                attn_mask = chunk_mask(x.size(0), self._frames(chunk_size), left_chunks, x.device)
        if self.left_only_attention:
            future = future_mask(x.size(0), x.size(0), x.device)
            attn_mask = future if attn_mask is None else attn_mask | future
        mask = merge_masks(attn_mask, pad_mask)
        padded = pad_mask.transpose(0, 1)
        x = x.masked_fill(padded.unsqueeze(-1), 0.0).contiguous()
        pos_emb = self._pos_emb(x, x.size(0))
        skipped = x
        outputs: List[Tensor] = []
        for layer in self.layers:
            x = layer(x, pos_emb, mask, padded)
            if self.long_skip:
                x = x + skipped
            outputs.append(x)
        return x.transpose(0, 1), x_lens, outputs

    def _pos_emb(self, x: Tensor, num_keys: int) -> Tensor:
        """What the layers' attention wants to know of positions, for queries (T, N, C)."""
        return relative_positions(x.size(0), num_keys, x) if self.position == "xl" else x.new_zeros(1, 0, 0)

    def _frames(self, frames: int) -> int:
        """Frames of the input in so many 50 Hz frames."""
        return 2 * frames // self.frame_factor

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """How many chunks of left context these settings give; -1 stands for all.

        Raises:
          UserError: the chunk has no whole number of frames.
        """
        if chunk_size < 0:
            return -1
        if chunk_size == 0 or 2 * chunk_size % self.frame_factor != 0:
            unit = self.frame_factor if self.frame_factor % 2 else self.frame_factor // 2
            raise UserError(
                f"--chunk-size {chunk_size}: this front end takes frames in groups, so it must be a multiple of {unit}"
            )
        return max(1, left_context_frames // chunk_size) if left_context_frames >= 0 else -1

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """States of new streams: keys, values and convolution frames of each layer, and the count of processed frames (N,) int32.

        Raises:
          UserError: the encoder is not causal, or chunk size and left context are not single, limited values.
        """
        self._check_streaming()
        left = self._frames(self.left_context_frames[0])
        states: List[Tensor] = []
        for _ in range(len(self.layers)):
            states.append(torch.zeros(left, batch_size, self.width, device=device))
            states.append(torch.zeros(left, batch_size, self.width, device=device))
            states.append(torch.zeros(self.cache_len, batch_size, self.width, device=device))
        states.append(torch.zeros(batch_size, dtype=torch.int32, device=device))
        return states

    def state_batch_dims(self) -> List[int]:
        """The batch axis of each state of :meth:`get_init_states`."""
        return [1, 1, 1] * len(self.layers) + [0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, T, C) frames.
          x_lens: (N,) valid frames.
          states: as :meth:`get_init_states` or the previous call returned them.

        Returns:
          (N, T, C), its lengths, and the next states.
        """
        x = x.transpose(0, 1)
        processed = states[-1]
        left = states[0].size(0)
        if self.abs_pos_emb:
            positions = processed.unsqueeze(0) + torch.arange(x.size(0), device=x.device).unsqueeze(1)
            x = x + sinusoids(positions, self.width).to(x.dtype)
        pad_mask = make_pad_mask(x_lens, x.size(0))
        mask = cached_mask(processed, left, pad_mask).unsqueeze(1)
        if self.left_only_attention:
            mask = mask | future_mask(x.size(0), left + x.size(0), x.device)
        padded = pad_mask.transpose(0, 1)
        x = x.masked_fill(padded.unsqueeze(-1), 0.0)
        pos_emb = self._pos_emb(x, left + x.size(0))
        skipped = x
        new_states: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, layer_states = layer.streaming_forward(x, pos_emb, states[3 * i : 3 * i + 3], mask, padded)
            if self.long_skip:
                x = x + skipped
            new_states += layer_states
        new_states.append(processed + x_lens.to(processed.dtype))
        return x.transpose(0, 1), x_lens, new_states

"""The Conformer encoder (Gulati et al. 2020, https://arxiv.org/abs/2005.08100)."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.encoders.conformer.attention import relative_positions, sinusoids
from asr_core.encoders.conformer.layer import ConformerLayer
from asr_core.encoders.conformer.options import ConformerOptions
from asr_core.nn.masks import cached_mask, chunk_mask, future_mask, make_pad_mask, merge_masks
from asr_core.nn.module_list import module_list
from asr_core.utils.errors import UserError


class Conformer(ChunkedEncoder):
    """Conformer layers at one frame rate.

    Args:
      config: sizes, dropouts and variants of the layers; the options of front ends are ignored.
      frame_factor: feature frames (100 Hz) per frame of the input.
    """

    def __init__(self, config: ConformerOptions, *, frame_factor: int = 4) -> None:
        super().__init__(config.causal, config.chunk_size, config.left_context_frames)
        if config.encoder_dim % 2 != 0:
            raise ValueError(f"encoder_dim must be even, got {config.encoder_dim}")
        self.output_downsampling_factor = 1
        self.frame_factor = frame_factor
        self.encoder_dim = (config.encoder_dim,) * config.num_encoder_layers
        self.width = self.output_dim = config.encoder_dim
        self.cache_len = config.cnn_module_kernel - 1
        self.abs_pos_emb = config.abs_pos_emb
        self.position = config.position
        self.left_only_attention = config.left_only_attention
        self.long_skip = config.long_skip
        self.layers = module_list([ConformerLayer(config) for _ in range(config.num_encoder_layers)])

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          x: (N, T, C) frames.
          x_lens: (N,) valid frames.

        Returns:
          (N, T, C), zeros at padding, and the lengths (N,).
        """
        x, x_lens, _ = self.forward_stacks(x, x_lens)
        return x, x_lens

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode as :meth:`forward` does, and return the output of each layer, (T, N, C), too."""
        x = x.transpose(0, 1)  # (T, N, C)
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
        padded = pad_mask.transpose(0, 1)  # (T, N)
        x = x.masked_fill(padded.unsqueeze(-1), 0.0).contiguous()
        pos_emb = self._pos_emb(x, x.size(0))
        skipped = x
        outputs: List[Tensor] = []
        for layer in self.layers:
            x = layer(x, pos_emb, mask, padded)  # (T, N, C)
            if self.long_skip:
                x = x + skipped
            outputs.append(x)
        return x.transpose(0, 1), x_lens, outputs

    def _pos_emb(self, x: Tensor, num_keys: int) -> Tensor:
        """Return the encoding of positions for queries x (T, N, C), empty if attention has none."""
        return relative_positions(x.size(0), num_keys, x) if self.position == "xl" else x.new_zeros(1, 0, 0)

    def _frames(self, frames: int) -> int:
        """Return the number of input frames in this many 50 Hz frames."""
        return 2 * frames // self.frame_factor

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return the chunks of left context that these settings give; -1 stands for all.

        Args:
          chunk_size, left_context_frames: in 50 Hz frames; -1 stands for all.

        Raises:
          UserError: the chunk has no whole number of frames.
        """
        if chunk_size < 0:
            return -1
        if chunk_size == 0 or 2 * chunk_size % self.frame_factor != 0:
            unit = self.frame_factor if self.frame_factor % 2 else self.frame_factor // 2
            raise UserError(
                f"--chunk-size {chunk_size} must be a multiple of {unit}: this front end takes "
                "frames in groups"
            )
        return max(1, left_context_frames // chunk_size) if left_context_frames >= 0 else -1

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        For each layer, keys and values (left, N, C) of the attention and frames (K - 1, N, C) of
        the convolution; last, the count of processed frames (N,) int32.

        Raises:
          UserError: the encoder is not causal, or chunk size and left context are not single,
            limited values.
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
        """Return the batch axis of each state of :meth:`get_init_states`."""
        return [1, 1, 1] * len(self.layers) + [0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, T, C) frames.
          x_lens: (N,) valid frames.
          states: from :meth:`get_init_states` or the previous call.

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

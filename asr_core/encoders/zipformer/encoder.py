"""The Zipformer encoder (Yao et al. 2023, https://arxiv.org/abs/2310.11230)."""

from typing import List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.encoders.entries import expand_entries
from asr_core.encoders.zipformer.layer import Zipformer2EncoderLayer
from asr_core.encoders.zipformer.stack import DownsampledZipformer2Encoder, Zipformer2Encoder
from asr_core.nn.bypass import SimpleDownsample
from asr_core.nn.masks import cached_mask, chunk_mask, make_pad_mask, may_be_padded
from asr_core.nn.module_list import module_list
from asr_core.nn.scaling import FloatLike, ScheduledFloat
from asr_core.utils.errors import UserError

Ints = Union[int, Sequence[int]]
Stack = Union[Zipformer2Encoder, DownsampledZipformer2Encoder]


class Zipformer2(ChunkedEncoder):
    """Stacks of layers at different frame rates and widths, on 50 Hz frames.

    Every argument of type ``Ints`` has one entry per stack; a single one is taken for all stacks.

    Args:
      output_downsampling_factor: reduction of the frame rate at the output; 2 gives 25 Hz.
      downsampling_factor: reduction of the frame rate inside each stack; its length is the number
        of stacks.
      encoder_dim: width of each stack.
      num_encoder_layers: layers of each stack.
      encoder_unmasked_dim: channels that training never masks.
      query_head_dim, pos_head_dim, value_head_dim, num_heads: sizes of the attention.
      feedforward_dim: width of the middle feed-forward module.
      cnn_module_kernel: taps of the depthwise convolutions, odd.
      pos_dim: width of the positional encoding.
      dropout: dropout rate; by default 0.3, falling to 0.1 over 20000 batches.
      warmup_batches: batch count after which layers are rarely skipped.
      causal: use chunk-causal convolutions, so that the encoder can stream.
      chunk_size, left_context_frames: see :class:`~asr_core.encoders.chunked.ChunkedEncoder`.
      mask_padding: the last frames of an utterance do not depend on how long the others of the
        batch are: where the frame rate falls, its last frame fills its last group, and its last
        chunk ends with it. In icefall's, padding and the longest utterance's end take their place.
    """

    def __init__(
        self,
        output_downsampling_factor: int = 2,
        downsampling_factor: Ints = (2, 4),
        encoder_dim: Ints = 384,
        num_encoder_layers: Ints = 4,
        encoder_unmasked_dim: Ints = 256,
        query_head_dim: Ints = 24,
        pos_head_dim: Ints = 4,
        value_head_dim: Ints = 12,
        num_heads: Ints = 8,
        feedforward_dim: Ints = 1536,
        cnn_module_kernel: Ints = 31,
        pos_dim: int = 192,
        dropout: Optional[FloatLike] = None,
        warmup_batches: float = 4000.0,
        causal: bool = False,
        chunk_size: Ints = (-1,),
        left_context_frames: Ints = (-1,),
        mask_padding: bool = True,
    ) -> None:
        super().__init__(causal, _as_tuple(chunk_size), _as_tuple(left_context_frames))
        if output_downsampling_factor != 2:
            raise ValueError(f"output_downsampling_factor must be 2, got {output_downsampling_factor}")
        if dropout is None:
            # strong while the model changes quickly, so that it does not rely on single channels
            dropout = ScheduledFloat((0.0, 0.3), (20000.0, 0.1))
        self.downsampling_factor = _as_tuple(downsampling_factor)
        num_stacks = len(self.downsampling_factor)
        self.output_downsampling_factor = output_downsampling_factor
        self.encoder_dim = _per_stack("encoder_dim", encoder_dim, num_stacks)
        self.encoder_unmasked_dim = _per_stack("encoder_unmasked_dim", encoder_unmasked_dim, num_stacks)
        self.num_encoder_layers = _per_stack("num_encoder_layers", num_encoder_layers, num_stacks)
        self.query_head_dim = _per_stack("query_head_dim", query_head_dim, num_stacks)
        self.value_head_dim = _per_stack("value_head_dim", value_head_dim, num_stacks)
        self.pos_head_dim = _per_stack("pos_head_dim", pos_head_dim, num_stacks)
        self.num_heads = _per_stack("num_heads", num_heads, num_stacks)
        self.feedforward_dim = _per_stack("feedforward_dim", feedforward_dim, num_stacks)
        self.cnn_module_kernel = _per_stack("cnn_module_kernel", cnn_module_kernel, num_stacks)
        for unmasked, dim in zip(self.encoder_unmasked_dim, self.encoder_dim):
            if unmasked > dim:
                raise ValueError(f"encoder_unmasked_dim {unmasked} is larger than encoder_dim {dim}")
        self.pos_dim = pos_dim
        self.mask_padding = mask_padding
        self.output_dim = max(self.encoder_dim)
        self.encoders = module_list(
            [self._make_stack(i, num_stacks, dropout, warmup_batches) for i in range(num_stacks)]
        )
        self.downsample_output = SimpleDownsample(output_downsampling_factor)

    def _make_stack(self, i: int, num_stacks: int, dropout: FloatLike, warmup_batches: float) -> Stack:
        """Build stack i, whose layers warm up after those of the stacks before it."""
        ds = self.downsampling_factor[i]
        layers = [
            Zipformer2EncoderLayer(
                self.encoder_dim[i],
                pos_dim=self.pos_dim,
                num_heads=self.num_heads[i],
                query_head_dim=self.query_head_dim[i],
                pos_head_dim=self.pos_head_dim[i],
                value_head_dim=self.value_head_dim[i],
                feedforward_dim=self.feedforward_dim[i],
                cnn_module_kernel=self.cnn_module_kernel[i],
                dropout=dropout,
                causal=self.causal,
            )
            for _ in range(self.num_encoder_layers[i])
        ]
        encoder = Zipformer2Encoder(
            layers,
            pos_dim=self.pos_dim,
            warmup_begin=warmup_batches * (i + 1) / (num_stacks + 1),
            warmup_end=warmup_batches * (i + 2) / (num_stacks + 1),
            # stacks of lower frame rates lose less when a layer is skipped, and are regularised
            # more
            final_layerdrop_rate=0.035 * ds**0.5,
        )
        if ds == 1:
            return encoder
        return DownsampledZipformer2Encoder(encoder, self.encoder_dim[i], ds, self.mask_padding)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          x: (N, T, encoder_dim[0]) frames at 50 Hz.
          x_lens: (N,) valid frames.

        Returns:
          (N, ceil(T / 2), output_dim) and the output lengths ``(x_lens + 1) // 2``.
        """
        x, x_lens, _ = self.forward_stacks(x, x_lens)
        return x, x_lens

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode as :meth:`forward` does, and return the stacks' outputs (T, N, C_i) at 50 Hz."""
        x = x.transpose(0, 1).contiguous()  # (T, N, C)
        pad_mask = make_pad_mask(x_lens.to(x.device), x.size(0))
        chunk_size = -1
        attn_mask: Optional[Tensor] = None
        feature_masks: List[Optional[Tensor]] = [None for _ in self.encoder_dim]
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            chunk_size, left_chunks = self._draw_chunk()
            if chunk_size > 0:
                attn_mask = chunk_mask(x.size(0), chunk_size, left_chunks, x.device)
            if self.training:
                feature_masks = self._draw_feature_masks(x)
        lens = self._own_ends(x_lens.to(x.device), x.size(0), chunk_size)
        outputs: List[Tensor] = []
        for i, stack in enumerate(self.encoders):
            x = _to_width(x, self.encoder_dim[i])
            x = stack(x, chunk_size, feature_masks[i], attn_mask, pad_mask, lens)  # (T, N, C_i)
            outputs.append(x)
        return self._output(outputs, pad_mask), (x_lens + 1) // 2, outputs

    def _own_ends(self, x_lens: Tensor, num_frames: int, chunk_size: int) -> Optional[Tensor]:
        """Return the lengths (N,) if convolutions must know where sequences end within a chunk of
        ``chunk_size`` of ``num_frames`` frames; else None.
        """
        if not (self.mask_padding and self.causal):
            return None
        whole = chunk_size < 0 or chunk_size > num_frames
        if not whole and self.training:
            return None  # hardly a training utterance is shorter than a chunk; looking takes time
        return x_lens if may_be_padded(x_lens, num_frames if whole else chunk_size) else None

    def _output(self, outputs: List[Tensor], pad_mask: Optional[Tensor] = None) -> Tensor:
        """Join the stacks' outputs (T, N, C_i), at half the rate: (N, ceil(T / 2), output_dim).

        They are the last stack's channels, then those that only earlier, wider stacks have.
        """
        pieces = [outputs[-1]]
        width = self.encoder_dim[-1]
        for i in range(len(self.encoder_dim) - 2, -1, -1):
            if self.encoder_dim[i] > width:
                pieces.append(outputs[i][..., width : self.encoder_dim[i]])
                width = self.encoder_dim[i]
        x = torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]
        return self.downsample_output(x, pad_mask if self.mask_padding else None).transpose(0, 1)

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return the chunks of left context that these settings give; -1 stands for all.

        Args:
          chunk_size, left_context_frames: in 50 Hz frames; -1 stands for all.

        Raises:
          UserError: the chunk is no multiple of a stack's downsampling factor, or the left context
            does not hold what the convolutions need.
        """
        if chunk_size < 0:
            return -1
        left_chunks = max(1, left_context_frames // max(1, chunk_size)) if left_context_frames >= 0 else -1
        for ds, kernel in zip(self.downsampling_factor, self.cnn_module_kernel):
            if chunk_size == 0 or chunk_size % ds != 0:
                raise UserError(
                    f"a chunk of {chunk_size} frames cannot be divided by the downsampling factor "
                    f"{ds}: change --chunk-size"
                )
            needed = (kernel // 2) * ds
            if 0 <= left_chunks * chunk_size < needed:
                raise UserError(
                    f"a left context of {left_chunks * chunk_size} frames (whole chunks of "
                    f"{chunk_size}) is too short for kernel"
                    f" {kernel} at downsampling factor {ds}: --left-context-frames must be at "
                    f"least {needed}"
                )
        return left_chunks

    def _draw_feature_masks(self, x: Tensor) -> List[Optional[Tensor]]:
        """Draw for each stack a mask (1, N, C) of the channels that sequences keep.

        Some sequences lose the last channels, some all that may be masked.
        The same sequences lose channels in all stacks, and for all frames: otherwise the hidden
        channels could be recovered from other stacks or neighbouring frames.
        """
        # One of eight sequences loses all channels that may be masked, one more of eight the last
        # half of them. The unmasked ones learn to do the essential work, so they must not be too
        # few; all presets except "tiny" keep at least 192.
        kept = torch.rand((2, x.size(1), 1), device=x.device) > 0.125
        keep1 = kept[0].to(x.dtype)
        keep2 = (kept[0] & kept[1]).to(x.dtype)
        masks: List[Optional[Tensor]] = []
        for unmasked, dim in zip(self.encoder_unmasked_dim, self.encoder_dim):
            middle = (dim - unmasked) // 2
            parts = [
                keep1.new_ones(x.size(1), unmasked),
                keep1.expand(-1, middle),
                keep2.expand(-1, dim - unmasked - middle),
            ]
            masks.append(torch.cat(parts, dim=1).unsqueeze(0))
        return masks

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        For each layer of width C, with L frames of left context at its rate: keys (L, N, H * key
        width), non-linear attention (1, N, L, 3 C / 4), values twice (L, N, H * value width),
        convolution caches twice (N, C, K // 2); last, the count of processed frames (N,) int32.

        Raises:
          UserError: the encoder is not causal, or chunk size and left context are not single,
            limited values.
        """
        self._check_streaming()
        left_frames = self.left_context_frames[0]
        states: List[Tensor] = []
        for i, ds in enumerate(self.downsampling_factor):
            left, dim, heads = left_frames // ds, self.encoder_dim[i], self.num_heads[i]
            key_dim, value_dim, pad = (
                heads * self.query_head_dim[i],
                heads * self.value_head_dim[i],
                self.cnn_module_kernel[i] // 2,
            )
            for _ in range(self.num_encoder_layers[i]):
                states.append(torch.zeros(left, batch_size, key_dim, device=device))
                states.append(torch.zeros(1, batch_size, left, 3 * dim // 4, device=device))
                states.append(torch.zeros(left, batch_size, value_dim, device=device))
                states.append(torch.zeros(left, batch_size, value_dim, device=device))
                states.append(torch.zeros(batch_size, dim, pad, device=device))
                states.append(torch.zeros(batch_size, dim, pad, device=device))
        states.append(torch.zeros(batch_size, dtype=torch.int32, device=device))
        return states

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state of :meth:`get_init_states`."""
        return [1, 1, 1, 1, 0, 0] * sum(self.num_encoder_layers) + [0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, chunk_size, encoder_dim[0]) frames at 50 Hz.
          x_lens: (N,) valid frames.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          (N, chunk_size / 2, output_dim), its lengths, and the next states.
        """
        x = x.transpose(0, 1)  # (T, N, C)
        left_frames = self.left_context_frames[0]
        processed = states[-1]
        pad_mask = make_pad_mask(x_lens, x.size(0))
        mask = cached_mask(processed, left_frames, pad_mask)
        outputs: List[Tensor] = []
        new_states: List[Tensor] = []
        begin = 0
        for i, stack in enumerate(self.encoders):
            end = begin + 6 * self.num_encoder_layers[i]
            x = _to_width(x, self.encoder_dim[i])
            x, stack_states = stack.streaming_forward(x, states[begin:end], left_frames, mask)
            outputs.append(x)
            new_states += stack_states
            begin = end
        new_states.append(processed + x_lens.to(processed.dtype))
        return self._output(outputs, pad_mask), (x_lens + 1) // 2, new_states


def _as_tuple(value: Ints) -> Tuple[int, ...]:
    """Return one integer or several as a tuple."""
    return (value,) if isinstance(value, int) else tuple(value)


def _per_stack(name: str, value: Ints, num_stacks: int) -> Tuple[int, ...]:
    """Return ``value`` with one entry per stack."""
    return expand_entries(name, _as_tuple(value), num_stacks, "stack")


def _to_width(x: Tensor, width: int) -> Tensor:
    """Truncate x (T, N, C), or pad it with zeros, to ``width`` channels."""
    if width <= x.size(-1):
        return x[..., :width]
    return torch.cat([x, x.new_zeros((x.size(0), x.size(1), width - x.size(2)))], dim=-1)

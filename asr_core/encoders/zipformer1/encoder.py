"""The first, streaming Zipformer (icefall's ``pruned_transducer_stateless7_streaming``)."""

import random
from typing import List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.encoders.entries import expand_entries
from asr_core.encoders.zipformer1.layer import ZipformerEncoderLayer
from asr_core.encoders.zipformer1.modules import AttentionDownsample, SkipFirst, WeightedSum
from asr_core.encoders.zipformer1.options import Zipformer1Options
from asr_core.encoders.zipformer1.stack import DownsampledZipformerEncoder, ZipformerEncoder
from asr_core.nn.masks import cached_mask, chunk_mask, make_pad_mask
from asr_core.nn.module_list import module_list
from asr_core.nn.scaling import ScheduledFloat
from asr_core.utils.errors import UserError

Stack = Union[ZipformerEncoder, DownsampledZipformerEncoder]


class Zipformer(ChunkedEncoder):
    """Stacks of layers at different frame rates, on 50 Hz frames.

    It is always causal; only attention sees whole chunks.

    Args:
      opts: the options. Each list has one entry per stack, or a single one for all; ``chunk_size``
        and ``left_context_frames``, for evaluation and streaming, must not be empty, see
        :class:`~asr_core.encoders.chunked.ChunkedEncoder`.
      dropout: dropout rate of the feed-forward modules and the positional encoding.
      pos_dim: width of the positional queries per head.
      warmup_batches: batch count after which layers and skip connections are rarely left out.
    """

    def __init__(
        self,
        opts: Zipformer1Options,
        *,
        dropout: float = 0.1,
        pos_dim: int = 4,
        warmup_batches: float = 4000.0,
    ) -> None:
        super().__init__(True, opts.chunk_size, opts.left_context_frames)
        self.output_downsampling_factor = 2
        self.downsampling_factor = opts.zipformer_downsampling_factors
        num_stacks = len(self.downsampling_factor)
        self.longest_step = max(self.downsampling_factor)
        self.num_encoder_layers = _per_stack("num_encoder_layers", opts.num_encoder_layers, num_stacks)
        self.feedforward_dims = _per_stack("feedforward_dims", opts.feedforward_dims, num_stacks)
        self.nhead = _per_stack("nhead", opts.nhead, num_stacks)
        self.encoder_dim = _per_stack("encoder_dims", opts.encoder_dims, num_stacks)
        self.output_dim = self.encoder_dim[-1]
        self.attention_dims = _per_stack("attention_dims", opts.attention_dims, num_stacks)
        self.encoder_unmasked_dims = _per_stack(
            "encoder_unmasked_dims", opts.encoder_unmasked_dims, num_stacks
        )
        self.cnn_module_kernels = _per_stack("cnn_module_kernels", opts.cnn_module_kernels, num_stacks)
        self.short_chunk_size = opts.short_chunk_size
        self.num_left_chunks = opts.num_left_chunks
        self._check()
        self.encoders = module_list(
            [self._make_stack(i, dropout, pos_dim, warmup_batches) for i in range(num_stacks)]
        )
        self.skip_layers = [_skip_from(self.downsampling_factor, i) for i in range(num_stacks)]
        self.skip_modules = module_list([WeightedSum() if k >= 0 else SkipFirst() for k in self.skip_layers])
        # At first half of the connections around stacks are left out, so that no stack is bypassed
        # for good.
        self.skip_rate = ScheduledFloat((0.0, 0.5), (warmup_batches, 0.025))
        self.downsample_output = AttentionDownsample(
            self.output_dim, self.output_dim, self.output_downsampling_factor
        )

    def _make_stack(self, i: int, dropout: float, pos_dim: int, warmup_batches: float) -> Stack:
        """Build stack i, whose layers warm up after those of the stacks before it."""
        ds, dim = self.downsampling_factor[i], self.encoder_dim[i]
        layers = [
            ZipformerEncoderLayer(
                dim,
                attention_dim=self.attention_dims[i],
                num_heads=self.nhead[i],
                pos_dim=pos_dim,
                feedforward_dim=self.feedforward_dims[i],
                cnn_module_kernel=self.cnn_module_kernels[i],
                dropout=dropout,
            )
            for _ in range(self.num_encoder_layers[i])
        ]
        begin, end = (warmup_batches * (i + k) / (len(self.encoder_dim) + 1) for k in (1, 2))
        stack = ZipformerEncoder(layers, dim, dropout, begin, end)
        input_dim = self.encoder_dim[max(0, i - 1)]
        return stack if ds == 1 else DownsampledZipformerEncoder(stack, input_dim, dim, ds)

    def _check(self) -> None:
        """Check the sizes of the stacks.

        Raises:
          ValueError: they do not fit together.
        """
        for i, ds in enumerate(self.downsampling_factor):
            dim, unmasked, before = (
                self.encoder_dim[i],
                self.encoder_unmasked_dims[i],
                self.encoder_dim[max(0, i - 1)],
            )
            if dim % 2 != 0 or unmasked > dim:
                raise ValueError(
                    "a stack's width must be even and at least that of the unmasked channels, got "
                    f"{dim} and {unmasked}"
                )
            if ds == 1 and dim != before:
                raise ValueError(f"a stack that is not downsampled keeps the width {before}, got {dim}")
            if self.longest_step % ds != 0:
                raise ValueError(f"the downsampling factor {ds} does not divide {self.longest_step}")
        if self.short_chunk_size < self.longest_step:
            raise ValueError(
                f"a short chunk size of {self.short_chunk_size} frames is below the downsampling "
                f"factor {self.longest_step}"
            )

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          x: (N, T, encoder_dims[0]) frames at 50 Hz.
          x_lens: (N,) valid frames.

        Returns:
          (N, ceil(T / 2), encoder_dims[-1]) and the output lengths ``(x_lens + 1) // 2``.
        """
        x, x_lens, _ = self.forward_stacks(x, x_lens)
        return x, x_lens

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode as :meth:`forward` does, and return the stacks' outputs (T, N, C_i) at 50 Hz."""
        x = x.transpose(0, 1).contiguous()  # (T, N, C)
        pad_mask = make_pad_mask(x_lens.to(x.device), x.size(0))
        attn_mask: Optional[Tensor] = None
        feature_masks: List[Optional[Tensor]] = [None for _ in self.encoder_dim]
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            chunk_size, left_chunks = self._draw_chunk_for(x.size(0))
            if chunk_size > 0:
                attn_mask = chunk_mask(x.size(0), chunk_size, left_chunks, x.device)
            if self.training:
                feature_masks = self._draw_feature_masks(x)
        outputs: List[Tensor] = []
        for i, (stack, skip) in enumerate(zip(self.encoders, self.skip_modules)):
            if self.skip_layers[i] >= 0 and self._draw_skip():
                x = skip(outputs[self.skip_layers[i]], x)
            x = stack(x, attn_mask, pad_mask, feature_masks[i])  # (T, N, C_i)
            outputs.append(x)
        return self.downsample_output(x, pad_mask).transpose(0, 1), (x_lens + 1) // 2, outputs

    def _draw_skip(self) -> bool:
        """Draw whether a connection around stacks is used."""
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            return random.random() > float(self.skip_rate)
        return True

    def _draw_chunk_for(self, num_frames: int) -> Tuple[int, int]:
        """Draw (chunk size, chunks of left context) for one batch; -1 stands for all.

        Training draws r from 1 to T - 1, with T the frames at the lowest rate. Above 0.75 T, for
        about a quarter of the batches, the whole utterance is seen, else chunks of ``r mod
        (short_chunk_size // step) + 1`` frames at that rate. A batch too short for a choice is seen
        as a whole.
        """
        if not self.training:
            return self._draw_chunk()
        num_steps = num_frames // self.longest_step
        drawn = random.randint(1, num_steps - 1) if num_steps > 1 else num_steps
        if num_steps < 2 or drawn > 0.75 * num_steps:
            return -1, -1
        return (
            drawn % (self.short_chunk_size // self.longest_step) + 1
        ) * self.longest_step, self.num_left_chunks

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> int:
        """Return the chunks of left context that these settings give; -1 stands for all.

        Args:
          chunk_size, left_context_frames: in 50 Hz frames; -1 stands for all.

        Raises:
          UserError: the chunk cannot be divided by a stack's downsampling factor.
        """
        if chunk_size < 0:
            return -1
        if chunk_size == 0 or chunk_size % self.longest_step != 0:
            raise UserError(
                f"a chunk of {chunk_size} frames cannot be divided by the downsampling factor "
                f"{self.longest_step}: change --chunk-size"
                " (or --decode-chunk-len, twice as long)"
            )
        return left_context_frames // chunk_size if left_context_frames >= 0 else -1

    def _draw_feature_masks(self, x: Tensor) -> List[Optional[Tensor]]:
        """Draw for each stack a mask (T', N, C) that hides the maskable channels of some frames.

        Frames at the lowest rate are drawn, so that no stack sees what is hidden from another.
        """
        num_frames, batch_size = x.size(0), x.size(1)
        longest = (num_frames + self.longest_step - 1) // self.longest_step
        # (frames at the lowest rate, N, 1)
        kept = (torch.rand((longest, batch_size, 1), device=x.device) > 0.15).to(x.dtype)
        masks: List[Optional[Tensor]] = []
        for ds, dim, unmasked in zip(self.downsampling_factor, self.encoder_dim, self.encoder_unmasked_dims):
            mask = kept.repeat_interleave(self.longest_step // ds, dim=0)[: (num_frames + ds - 1) // ds]
            masks.append(
                torch.cat(
                    [torch.ones_like(mask).expand(-1, -1, unmasked), mask.expand(-1, -1, dim - unmasked)],
                    dim=2,
                )
            )
        return masks

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        For each stack of L layers, at its frame rate, len (L, N) int64, then for each stack avg (L,
        N, C), then key (L, left, N, A), val, val2 (L, left, N, A / 2), conv1, conv2 (L, N, C, K -
        1); last, the count of processed frames (N,) int32.

        Raises:
          UserError: chunk size and left context are not single, limited values.
        """
        self._check_streaming()
        left, n = self.left_context_frames[0], batch_size
        states: List[Tensor] = [
            torch.zeros(num, n, dtype=torch.int64, device=device) for num in self.num_encoder_layers
        ]
        for kind in range(6):
            for i, num in enumerate(self.num_encoder_layers):
                dim, attention_dim, left_of_stack = (
                    self.encoder_dim[i],
                    self.attention_dims[i],
                    left // self.downsampling_factor[i],
                )
                if kind == 0:
                    size = [num, n, dim]
                elif kind == 1:
                    size = [num, left_of_stack, n, attention_dim]
                elif kind < 4:
                    size = [num, left_of_stack, n, attention_dim // 2]
                else:
                    size = [num, n, dim, self.cnn_module_kernels[i] - 1]
                states.append(torch.zeros(size, device=device))
        states.append(torch.zeros(n, dtype=torch.int32, device=device))
        return states

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state of :meth:`get_init_states`."""
        return [dim for dim in (1, 1, 2, 2, 2, 1, 1) for _ in self.num_encoder_layers] + [0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, chunk_size, encoder_dims[0]) frames at 50 Hz.
          x_lens: (N,) valid frames.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          (N, chunk_size / 2, encoder_dims[-1]), its lengths, and the next states.
        """
        x = x.transpose(0, 1)
        left, processed = self.left_context_frames[0], states[-1]
        pad_mask = make_pad_mask(x_lens, x.size(0))
        mask = cached_mask(processed, left, pad_mask)
        num_stacks = len(self.num_encoder_layers)
        outputs: List[Tensor] = []
        new_states = list(states)
        for i, (stack, skip) in enumerate(zip(self.encoders, self.skip_modules)):
            if self.skip_layers[i] >= 0:
                x = skip(outputs[self.skip_layers[i]], x)
            x, stack_states = stack.streaming_forward(x, states[i:-1:num_stacks], left, mask, pad_mask)
            outputs.append(x)
            for kind, state in enumerate(stack_states):
                new_states[kind * num_stacks + i] = state
        new_states[-1] = processed + x_lens.to(processed.dtype)
        return self.downsample_output(x, pad_mask).transpose(0, 1), (x_lens + 1) // 2, new_states


def _per_stack(name: str, values: Sequence[int], num_stacks: int) -> Tuple[int, ...]:
    """Return ``values`` with one entry per stack."""
    return expand_entries(name, tuple(values), num_stacks, "stack")


def _skip_from(factors: Sequence[int], i: int) -> int:
    """Return the stack whose output is added to the input of stack i; -1 for none.

    There is one where the frame rate rises: the last before that runs at stack i's rate at least.
    """
    if i <= 1 or factors[i - 1] <= factors[i]:
        return -1
    return max((j for j in range(i - 1) if factors[j] <= factors[i]), default=0)

"""The ContextNet encoder (Han et al. 2020, https://arxiv.org/abs/2005.03191)."""

import math
from typing import Final, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.frame_causal import FrameCausalEncoder
from asr_core.nn.batch_norm import MaskedBatchNorm1d
from asr_core.nn.masks import make_pad_mask
from asr_core.nn.module_list import module_list
from asr_core.ops.depthwise import depthwise_conv1d


class ConvUnit(nn.Module):
    """Depthwise-separable convolution over time and batch normalisation.

    Args:
      in_channels, out_channels: widths C and C'.
      kernel_size: number K of taps, odd; with 1 there is no depthwise part.
      stride: every stride-th frame is kept.
      causal: whether the convolution sees only the past.
    """

    has_kernel: Final[bool]  # a constant, so that scripting leaves the other branch out

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, causal: bool
    ) -> None:
        super().__init__()
        self.context = kernel_size - 1
        self.left = self.context if causal else self.context // 2
        self.stride = stride
        self.has_kernel = kernel_size > 1
        if self.has_kernel:
            self.depthwise_conv = nn.Conv1d(
                in_channels, in_channels, kernel_size, groups=in_channels, bias=False
            )
        self.pointwise = nn.Linear(in_channels, out_channels)
        self.norm = MaskedBatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor, pad_mask: Tensor) -> Tensor:
        """Convolve whole sequences.

        Args:
          x: (T, N, C), 0 at padding.
          pad_mask: (T', N) boolean, True at padding of the output.

        Returns:
          (T', N, C'), 0 at padding.
        """
        if self.has_kernel:
            x = depthwise_conv1d(x, self.depthwise_conv.weight, None, self.left)
        return self.norm(self.pointwise(x[:: self.stride]), pad_mask)

    def get_init_state(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the frames (K - 1, N, C) before a new stream, which are 0."""
        return torch.zeros(self.context, batch_size, self.pointwise.in_features, device=device)

    def streaming_forward(self, x: Tensor, cache: Tensor) -> Tensor:
        """Convolve one chunk.

        Args:
          x: (T, N, C).
          cache: (K - 1, N, C) frames before the chunk.

        Returns:
          (T / stride, N, C')
        """
        if self.has_kernel:
            x = depthwise_conv1d(torch.cat([cache, x]), self.depthwise_conv.weight, None, 0)[: x.size(0)]
        return self.norm(self.pointwise(x[:: self.stride]), None)


class SqueezeExcite(nn.Module):
    """Squeeze and excitation: channels gated by the means of all channels.

    See Hu et al. 2018, https://arxiv.org/abs/1709.01507, section 3.

    Args:
      channels: width C.
      ratio: the width inside is ``channels // ratio``.
      causal: take each frame's mean over all frames up to it, else over the whole utterance.
    """

    def __init__(self, channels: int, ratio: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.squeeze = nn.Linear(channels, max(1, channels // ratio))
        self.excite = nn.Linear(max(1, channels // ratio), channels)

    def forward(self, x: Tensor, pad_mask: Tensor) -> Tensor:
        """Gate whole sequences; padding is ignored.

        Args:
          x: (T, N, C), 0 at padding.
          pad_mask: (T, N) boolean, True at padding.

        Returns:
          (T, N, C)
        """
        if self.causal:
            mean, _ = self._means(x, torch.zeros_like(x[0]), torch.zeros_like(pad_mask[0], dtype=torch.int64))
            return self._scaled(x, mean)
        count = (~pad_mask).sum(dim=0).clamp(min=1)
        return self._scaled(x, x.sum(dim=0) / count.unsqueeze(1))

    def streaming_forward(self, x: Tensor, total: Tensor, count: Tensor) -> Tuple[Tensor, Tensor]:
        """Gate one chunk.

        Args:
          x: (T, N, C).
          total: (N, C) sum of the frames before the chunk.
          count: (N,) their number.

        Returns:
          (T, N, C) and the next total.
        """
        mean, total = self._means(x, total, count)
        return self._scaled(x, mean), total

    def _means(self, x: Tensor, total: Tensor, count: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the mean (T, N, C) up to each frame, and the sum (N, C) up to the last."""
        sums = total + x.cumsum(dim=0)
        position = torch.arange(1, x.size(0) + 1, device=x.device).unsqueeze(1) + count
        return sums / position.unsqueeze(2), sums[-1]

    def _scaled(self, x: Tensor, mean: Tensor) -> Tensor:
        """Gate x (T, N, C) by means (T, N, C) or (N, C)."""
        return x * torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(mean))))


class ContextNetBlock(nn.Module):
    """Convolutions, squeeze and excitation, and a residual connection around several convolutions.

    With f(h) = SiLU(ConvUnit(h)): ``y = SiLU(SE(f(f(...f(x)))) + ConvUnit(x))`` (section 2.2.4);
    one more f belongs to the SE.

    Args:
      in_channels, out_channels: widths C and C'.
      num_layers: number of convolutions; the last one and the residual have the stride.
      stride: see :class:`ConvUnit`.
      kernel_size, residual_kernel: taps of the convolutions; those of the residual are the same or
        1.
      se_ratio: see :class:`SqueezeExcite`.
      causal_conv, causal_se: which parts see only the past.
    """

    has_residual: Final[bool]
    compiled = "always"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_layers: int,
        stride: int,
        kernel_size: int,
        residual_kernel: int,
        se_ratio: int,
        causal_conv: bool,
        causal_se: bool,
    ) -> None:
        super().__init__()
        self.stride = stride
        widths = [in_channels] + [out_channels] * (num_layers + 1)
        strides = [1] * (num_layers - 1) + [stride, 1]
        self.units = module_list(
            [ConvUnit(a, b, kernel_size, s, causal_conv) for a, b, s in zip(widths, widths[1:], strides)]
        )
        self.se = SqueezeExcite(out_channels, se_ratio, causal_se)
        self.has_residual = num_layers > 1
        if self.has_residual:
            self.residual = ConvUnit(in_channels, out_channels, residual_kernel, stride, causal_conv)

    def forward(self, x: Tensor, pad_mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole sequences.

        Args:
          x: (T, N, C), 0 at padding.
          pad_mask: (T, N) boolean, True at padding.

        Returns:
          (ceil(T / stride), N, C') and its padding mask.
        """
        h, mask, out_mask = x, pad_mask, pad_mask[:: self.stride]
        for unit in self.units:
            mask = mask[:: unit.stride]
            h = nn.functional.silu(unit(h, mask))
        h = self.se(h, mask)
        if self.has_residual:
            h = h + self.residual(x, out_mask)
        return nn.functional.silu(h), out_mask

    def get_init_states(self, batch_size: int, device: torch.device) -> List[Tensor]:
        """Return the states of new streams.

        For each convolution, the frames (K - 1, N, C) before the chunk; last, the sum (N, C') of
        the frames of squeeze and excitation.
        """
        states: List[Tensor] = []
        for unit in self.units:
            state = unit.get_init_state(batch_size, device)
            states.append(state)
        states.append(torch.zeros(batch_size, self.se.excite.out_features, device=device))
        return states

    def streaming_forward(
        self, x: Tensor, states: List[Tensor], count: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (T, N, C).
          states: from :meth:`get_init_states` or the previous call.
          count: (N,) frames of output so far.

        Returns:
          (T / stride, N, C') and the next states.
        """
        h = x
        next_states: List[Tensor] = []
        for i, unit in enumerate(self.units):
            cache = states[i]
            next_states.append(torch.cat([cache, h])[h.size(0) :])
            h = unit.streaming_forward(h, cache)
            h = nn.functional.silu(h)
        h, total = self.se.streaming_forward(h, states[-1], count)
        next_states.append(total)
        if self.has_residual:
            h = h + self.residual.streaming_forward(x, states[0])
        return nn.functional.silu(h), next_states


class ContextNet(FrameCausalEncoder):
    """Blocks of depthwise-separable convolutions that halve the frame rate a few times.

    Args:
      feature_dim: width of the input.
      channels, num_layers, strides: sizes of each block.
      kernel_size: taps of the convolutions, odd.
      residual_kernel: kernel_size, or 1 for a projection.
      se_ratio: see :class:`SqueezeExcite`.
      padding: "causal" or "same", that is, whether convolutions see the past or both sides.
      causal: average over the past in squeeze and excitation, so that the encoder can stream; needs
        causal padding.
      chunk_size, left_context_frames: see :class:`~asr_core.encoders.chunked.ChunkedEncoder`; the
        output does not depend on them.
    """

    def __init__(
        self,
        feature_dim: int,
        channels: Sequence[int],
        num_layers: Sequence[int],
        strides: Sequence[int],
        kernel_size: int = 5,
        residual_kernel: int = 5,
        se_ratio: int = 8,
        padding: str = "causal",
        causal: bool = False,
        chunk_size: Sequence[int] = (-1,),
        left_context_frames: Sequence[int] = (-1,),
    ) -> None:
        factor = math.prod(strides)
        super().__init__(causal, chunk_size, left_context_frames, factor // math.gcd(2, factor))
        if not len(channels) == len(num_layers) == len(strides):
            raise ValueError(
                f"each block needs a width, layers and a stride, got {len(channels)}, "
                f"{len(num_layers)} and {len(strides)}"
            )
        if min(*channels, *num_layers, *strides, se_ratio) < 1 or kernel_size % 2 == 0:
            raise ValueError("channels, layers, strides and the ratio must be positive, the kernel odd")
        if residual_kernel not in (1, kernel_size):
            raise ValueError(f"the residual's kernel is 1 or {kernel_size}, not {residual_kernel}")
        if padding not in ("causal", "same") or (causal and padding != "causal"):
            raise ValueError(f'padding is "causal" or, unless it is to stream, "same", not {padding!r}')
        self.output_downsampling_factor = factor
        self.output_dim = channels[-1]
        self.strides = list(strides)
        self.num_states = [layers + 2 for layers in num_layers]  # of each block, whose SE adds a convolution
        self.blocks = module_list(
            [
                ContextNetBlock(
                    in_channels,
                    out_channels,
                    num_layers=layers,
                    stride=stride,
                    kernel_size=kernel_size,
                    residual_kernel=residual_kernel,
                    se_ratio=se_ratio,
                    causal_conv=padding == "causal",
                    causal_se=causal,
                )
                for in_channels, out_channels, layers, stride in zip(
                    [feature_dim, *channels], channels, num_layers, strides
                )
            ]
        )

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          x: (N, T, feature_dim) features.
          x_lens: (N,) valid frames.

        Returns:
          (N, ceil(T / factor), output_dim) and the lengths, divided and rounded up
            in the same way.
        """
        pad_mask = make_pad_mask(x_lens.to(x.device), x.size(1)).t()
        x = x.transpose(0, 1).masked_fill(pad_mask.unsqueeze(2), 0.0)
        for block in self.blocks:
            x, pad_mask = block(x, pad_mask)
        factor = self.output_downsampling_factor
        return x.transpose(0, 1), (x_lens + factor - 1) // factor

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        Those of each block, see :meth:`ContextNetBlock.get_init_states`; last, the count of
        processed frames (N,) int32.

        Raises:
          UserError: the encoder is not causal, or there is not one chunk size.
        """
        self._check_streaming()
        states: List[Tensor] = []
        for block in self.blocks:
            states += block.get_init_states(batch_size, device)
        states.append(torch.zeros(batch_size, dtype=torch.int32, device=device))
        return states

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state of :meth:`get_init_states`."""
        dims: List[int] = []
        for num_states in self.num_states:
            dims += [1] * (num_states - 1) + [0]
        return [*dims, 0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, T, feature_dim), T a multiple of the downsampling factor.
          x_lens: (N,) valid frames; less than T only in a stream's last chunk.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          (N, T / factor, output_dim), its lengths, and the next states.
        """
        x = x.transpose(0, 1)
        processed = states[-1]
        count = processed.to(torch.int64)
        next_states: List[Tensor] = []
        begin = 0
        for i, block in enumerate(self.blocks):
            end = begin + self.num_states[i]
            count = torch.div(count, self.strides[i], rounding_mode="floor")
            x, block_states = block.streaming_forward(x, states[begin:end], count)
            next_states += block_states
            begin = end
        next_states.append(processed + x_lens.to(processed.dtype))
        factor = self.output_downsampling_factor
        return x.transpose(0, 1), torch.div(x_lens + factor - 1, factor, rounding_mode="floor"), next_states

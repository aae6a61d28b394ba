"""Small parts of the first Zipformer: balancer, norm, pooling, change of frame rate.

They are those of icefall's ``pruned_transducer_stateless7``.
"""

import random
from typing import TYPE_CHECKING, Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.balancer import Balancer
from asr_core.nn.masks import repeat_last_frame
from asr_core.nn.recompute import once
from asr_core.nn.scaling import ScaledLinear, limit_param_value
from asr_core.ops.basic_norm import basic_norm, basic_norm_plain
from asr_core.ops.limits import penalize_large


class ActivationBalancer(Balancer):
    """A balancer that acts less often as training proceeds.

    Activations go out of bounds mostly early on, and each use costs time. The count of batches is
    part of the state dict.

    Args:
      num_channels, channel_dim, min_positive, max_positive, min_abs, max_abs: see
        :class:`~asr_core.nn.balancer.Balancer`.
      min_prob: lower bound of its probability, which starts at 0.5 and halves every 4000 batches.
    """

    if TYPE_CHECKING:
        count: Tensor

    def __init__(
        self,
        num_channels: int,
        channel_dim: int = -1,
        min_positive: float = 0.05,
        max_positive: float = 0.95,
        min_abs: float = 0.2,
        max_abs: float = 100.0,
        min_prob: float = 0.1,
    ) -> None:
        super().__init__(num_channels, channel_dim, min_positive, max_positive, min_abs, max_abs, prob=0.5)
        self.min_prob = min_prob
        self.register_buffer("count", torch.tensor(0, dtype=torch.int64))
        self._seen = 0  # the count as a Python number: reading a tensor would wait for its device

    def drawn(self, x: Tensor) -> bool:
        """Decide as :meth:`Balancer.drawn` does whether to act on x, and count the batch."""
        if not self.training or not x.requires_grad:
            return False
        self.prob = max(self.min_prob, 0.5 ** (1.0 + once(self._count) / 4000.0))
        return super().drawn(x)

    def _count(self) -> int:
        """Count a batch; return the number of those before it."""
        self._seen += 1
        return self._seen - 1

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.count.fill_(self._seen)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._seen = int(self.count)


class BasicNorm(nn.Module):
    """The norm ``x / sqrt(mean(x^2) + exp(eps))`` over the last axis, with a learned ``eps``.

    Beside the learned constant small inputs stay small, so that the norm keeps some of the length;
    limits keep it from being learned away.

    Args:
      eps: initial value of ``exp(eps)``.
    """

    def __init__(self, eps: float = 0.25) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.tensor(eps).log())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (T, N, C)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return basic_norm_plain(x, self.eps)
        return basic_norm(x, limit_param_value(self.eps, -3.0, 3.0, prob=0.25, training=self.training))


class CumulativeMean(nn.Module):
    """Projected mean of each frame and all frames before it, which a causal layer can see.

    Args:
      channels: width C of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = ScaledLinear(channels, channels, bias=False, initial_scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Average whole sequences: x (T, N, C) -> (T, N, C)."""
        counts = torch.arange(1, x.size(0) + 1, device=x.device).view(-1, 1, 1)  # (T, 1, 1)
        # sums of long sequences are too large for half precision
        sums = x.cumsum(dim=0, dtype=torch.promote_types(x.dtype, torch.float32))
        return self.proj((sums / counts).to(x.dtype))

    def streaming_forward(
        self, x: Tensor, cached_len: Tensor, cached_avg: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Average over one chunk and all frames before it.

        Args:
          x: (T, N, C).
          cached_len: (N,) number of frames before the chunk.
          cached_avg: (N, C) their mean.

        Returns:
          (T, N, C) and the next cached_len, cached_avg.
        """
        counts = torch.arange(1, x.size(0) + 1, device=x.device).unsqueeze(1) + cached_len.unsqueeze(
            0
        )  # (T, N)
        mean = (x.cumsum(dim=0) + cached_avg * cached_len.unsqueeze(1)) / counts.unsqueeze(2)
        return self.proj(mean), cached_len + x.size(0), mean[-1]


class AttentionDownsample(nn.Module):
    """Mean of each group of frames, weighted by a softmax of products with a learned query.

    Args:
      in_channels, out_channels: widths C and C'; channels of the output beyond those of the input
        are a projection of the whole group.
      downsample: frames per group. The last group is filled by repeating the last frame.
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(
                f"a width of {out_channels} cannot follow one of {in_channels}: widths may only grow"
            )
        self.query = nn.Parameter(torch.randn(in_channels) * in_channels**-0.5)
        self.extra_proj: Optional[nn.Linear] = None
        if out_channels > in_channels:
            self.extra_proj = nn.Linear(in_channels * downsample, out_channels - in_channels, bias=False)
        self.downsample = downsample

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
        """Reduce the frame rate.

        Args:
          x: (T, N, C).
          pad_mask: (N, T) boolean, True at padding.

        Returns:
          (ceil(T / downsample), N, C')
        """
        ds = self.downsample
        x = repeat_last_frame(x, pad_mask)
        num_groups = (x.size(0) + ds - 1) // ds
        x = torch.cat(
            [x, x[x.size(0) - 1 :].expand(num_groups * ds - x.size(0), x.size(1), x.size(2))], dim=0
        )
        x = x.reshape(num_groups, ds, x.size(1), x.size(2))  # (G, ds, N, C)
        scores = torch.matmul(x, self.query)  # (G, ds, N)
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            # a tiny penalty keeps the softmax from saturating, where it has no gradient to come
            # back with
            scores = penalize_large(scores, 10.0, 1.0e-4)
        out = (x * scores.softmax(dim=1).to(x.dtype).unsqueeze(3)).sum(dim=1)
        if self.extra_proj is not None:
            out = torch.cat([out, self.extra_proj(x.transpose(1, 2).flatten(2))], dim=2)
        return out


class BiasedUpsample(nn.Module):
    """Repetition of each frame, with a learned bias for each of the copies.

    Args:
      channels: number C of channels.
      upsample: number of copies.
    """

    def __init__(self, channels: int, upsample: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(upsample, channels) * 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Raise the frame rate: x (T, N, C) -> (T * upsample, N, C)."""
        return (x.unsqueeze(1) + self.bias.to(x.dtype).unsqueeze(1)).flatten(0, 1)


class WeightedSum(nn.Module):
    """``w x + (1 - w) y`` with a learned scalar w; x may have fewer channels than y.

    In a quarter of the batches training limits w to 0 .. 0.75, so that y, which has seen more
    layers, is not lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Combine x (T, N, C) and y (T, N, C'), C' at least C: (T, N, C')."""
        weight: Tensor = self.weight1
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            if random.random() < 0.25:
                weight = weight.clamp(min=0.0, max=0.75)
        if x.size(2) < y.size(2):
            x = F.pad(x, (0, y.size(2) - x.size(2)))
        return torch.lerp(y, x.to(y.dtype), weight.to(y.dtype))


class SkipFirst(nn.Module):
    """Replacement for a :class:`WeightedSum` that has nothing to add."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y (T, N, C)."""
        return y

"""Bypass and change of frame rate in Zipformer (Yao et al. 2023, sections 3.1 and 3.2)."""

from typing import Optional

import torch
from torch import Tensor, nn

from asr_core.nn.draws import Chance, Drawn, given
from asr_core.nn.masks import repeat_last_frame
from asr_core.nn.scaling import FloatLike, ScheduledFloat, limit_or_not, limit_param_value
from asr_core.ops.bypass import interpolate


class BypassModule(Chance):
    """Learned interpolation of a module's input and output, ``(1 - c) x_orig + c x`` per channel.

    The weight c of the output begins at 0.5. At first it must be at least 0.9, so that every module
    has to learn something before the model may leave it out; over 20000 batches that bound falls to
    0.2. The bounds are soft: a weight outside does not get further away.

    Args:
      embed_dim: number of channels.
      skip_rate: probability per sequence, in training, of taking the input alone.
      scale_min: lower soft limit of the weight of the output; None takes the schedule above.
      scale_max: upper soft limit.
    """

    def __init__(
        self,
        embed_dim: int,
        skip_rate: FloatLike = 0.0,
        scale_min: Optional[FloatLike] = None,
        scale_max: FloatLike = 1.0,
    ) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((embed_dim,), 0.5))
        self.skip_rate = skip_rate
        self.scale_min = ScheduledFloat((0.0, 0.9), (20000.0, 0.2)) if scale_min is None else scale_min
        self.scale_max = scale_max

    def forward(self, x_orig: Tensor, x: Tensor) -> Tensor:
        """Interpolate x_orig (T, N, C) and x (T, N, C)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return x_orig + (x - x_orig) * self.bypass_scale
        x = x.to(x_orig.dtype)
        return interpolate(x_orig, x, self._scale(x.shape[1]))

    def _scale(self, batch_size: int) -> Tensor:
        """Return the weights of the output, (C,), or (N, C) where sequences skip the module."""
        scale: Tensor = self.bypass_scale
        if not self.training:
            return scale
        if self.draws is not None:
            return given(self)
        scale = limit_param_value(scale, float(self.scale_min), float(self.scale_max))
        return self._sometimes_skipped(scale, batch_size)

    def draw(self, x: Tensor) -> Drawn:
        """Draw the weights for the sequences of x (T, N, C)."""
        scale = limit_or_not(self.bypass_scale, float(self.scale_min), float(self.scale_max))
        return Drawn(tensor=self._sometimes_skipped(scale, x.shape[1]))

    def _sometimes_skipped(self, scale: Tensor, batch_size: int) -> Tensor:
        """Return the scale (C,), or (N, C), 0 for the sequences that skip the module."""
        skip_rate = float(self.skip_rate)
        if skip_rate > 0.0:
            scale = scale * (torch.rand((batch_size, 1), device=scale.device) > skip_rate)
        return scale


class SimpleDownsample(nn.Module):
    """Mean of each group of ``downsample`` frames, with learned weights that all channels share.

    The weights are a softmax of biases that begin at 0, so training starts with the plain mean.

    Args:
      downsample: frames per group. The last group is filled by repeating the last frame.
    """

    def __init__(self, downsample: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(downsample))
        self.downsample = downsample

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
        """Reduce x (T, N, C) to (ceil(T / downsample), N, C).

        The padding that ``pad_mask`` (N, T) names, True there, has no part in it: a sequence's last
        group is filled as if it ended the batch.
        """
        x = repeat_last_frame(x, pad_mask)
        seq_len, batch_size, channels = x.size()
        ds = self.downsample
        num_groups = (seq_len + ds - 1) // ds
        pad = num_groups * ds - seq_len
        x = torch.cat([x, x[seq_len - 1 :].expand(pad, batch_size, channels)], dim=0)
        weights = self.bias.softmax(dim=0).to(x.dtype).view(1, ds, 1, 1)
        return (x.view(num_groups, ds, batch_size, channels) * weights).sum(dim=1)


class SimpleUpsample(nn.Module):
    """Repetition of each frame ``upsample`` times."""

    def __init__(self, upsample: int) -> None:
        super().__init__()
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        """Extend x (T, N, C) to (T * upsample, N, C)."""
        seq_len, batch_size, channels = x.size()
        x = x.unsqueeze(1).expand(seq_len, self.upsample, batch_size, channels)
        return x.reshape(-1, batch_size, channels)

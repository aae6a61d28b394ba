"""The front end of Zipformer: 100 Hz features to 50 Hz frames (Yao et al. 2023, section 3.1)."""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.masks import may_be_padded
from asr_core.nn.scaling import (
    Balancer,
    BiasNorm,
    Dropout3,
    FloatLike,
    ScaledConv2d,
    ScaleGrad,
    ScheduledFloat,
    SwooshL,
    SwooshR,
    Whiten,
    whitening_limit,
)
from asr_core.ops.depthwise import blank_tails, depthwise_conv2d
from asr_core.ops.perceptron import Layers, add_perceptron


class ConvNeXt(nn.Module):
    """A depthwise convolution and a two-layer perceptron per position, added to their input (Liu et
    al. 2022, simplified).

    The large 7 x 7 kernel gives the front end context that 3 x 3 convolutions would need many
    layers for. The second layer of the perceptron starts at a hundredth of its usual size, so that
    at first the whole is the identity: the features of the convolutions before it reach the encoder
    undisturbed. The balancer between the layers wants at least 30 % of the hidden units positive,
    since Swoosh lets through little of the others.

    Args:
      channels: number of channels.
      hidden_ratio: width of the perceptron relative to ``channels``.
      kernel_size: (time, frequency), both odd.
      layerdrop_rate: probability per sequence of leaving the residual out in training.
    """

    def __init__(
        self,
        channels: int,
        hidden_ratio: int = 3,
        kernel_size: Tuple[int, int] = (7, 7),
        layerdrop_rate: FloatLike = 0.0,
    ) -> None:
        super().__init__()
        self.padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        hidden = channels * hidden_ratio
        self.layerdrop_rate = layerdrop_rate
        self.depthwise_conv = nn.Conv2d(
            channels, channels, kernel_size, groups=channels, padding=self.padding
        )
        self.pointwise_conv1 = nn.Conv2d(channels, hidden, 1)
        self.hidden_balancer = Balancer(
            hidden, channel_dim=-1, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.activation = SwooshL()
        self.pointwise_conv2 = ScaledConv2d(hidden, channels, 1, initial_scale=0.01)
        self.out_balancer = Balancer(
            channels, channel_dim=1, min_positive=0.4, max_positive=0.6, min_abs=1.0, max_abs=6.0
        )
        self.out_whiten = Whiten(1, whitening_limit=5.0, prob=(0.025, 0.25), grad_scale=0.01)

    def forward(self, x: Tensor, lens: Optional[Tensor] = None) -> Tensor:
        """Process x (N, C, T, F); the result has its shape.

        What follows the lengths (N,) counts as zero in the convolution.
        """
        lens = _if_padded(lens, x.size(2))
        conv = self.depthwise_conv
        y = depthwise_conv2d(x, conv.weight, conv.bias, lens)
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return self._constrain(x + self._perceptron(y))
        balance, keep = self._drawn_balance(y), None
        rate = float(self.layerdrop_rate) if self.training else 0.0
        if rate > 0.0:
            keep = (torch.rand((y.size(0), 1, 1, 1), device=y.device) > rate).to(y.dtype)
        return self._constrain(add_perceptron(x, y, self._layers(), keep, balance))

    def _drawn_balance(self, y: Tensor) -> List[float]:
        """Draw whether the balancer acts on the hidden units of y (N, C, T, F) this time.

        Return its bounds and scale if so, else nothing.
        """
        balancer = self.hidden_balancer
        has_grad = y.requires_grad or not torch.is_grad_enabled()
        if isinstance(balancer, Balancer) and balancer.drawn(y if has_grad else self.pointwise_conv1.weight):
            return [*balancer.bounds(), float(balancer.grad_scale)]
        return []

    def _layers(self) -> Layers:
        one, two = self.pointwise_conv1, self.pointwise_conv2
        assert one.bias is not None and two.bias is not None
        return Layers(one.weight.flatten(1), one.bias, two.weight.flatten(1), two.bias)

    def _constrain(self, x: Tensor) -> Tensor:
        """Attach balancer and whitening to x (N, C, T, F)."""
        return self.out_whiten(self.out_balancer(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _perceptron(self, y: Tensor) -> Tensor:
        """Apply the two layers to each position of y (N, C, T, F), in torch's operations."""
        rows = y.permute(0, 2, 3, 1)  # (N, T, F, C)
        rows = F.linear(rows, self.pointwise_conv1.weight.flatten(1), self.pointwise_conv1.bias)
        rows = self.activation(rows)
        rows = F.linear(rows, self.pointwise_conv2.weight.flatten(1), self.pointwise_conv2.bias)
        return rows.permute(0, 3, 1, 2)

    def streaming_forward(
        self, x: Tensor, cache: Tensor, lens: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Process one chunk.

        Args:
          x: (N, C, T + right, F): the chunk's frames and ``kernel_size[0] // 2`` frames after them.
          cache: (N, C, left, F): the ``kernel_size[0] // 2`` frames before the chunk.
          lens: (N,) valid frames of x; what follows counts as zero in the convolution.

        Returns:
          (N, C, T, F) and the next cache.
        """
        pad = self.padding[0]
        num_frames = x.size(2) - pad
        whole = torch.cat([cache, blank_tails(x, _if_padded(lens, x.size(2)))], dim=2)
        y = F.conv2d(
            whole,
            self.depthwise_conv.weight,
            self.depthwise_conv.bias,
            padding=(0, self.padding[1]),
            groups=whole.size(1),
        )
        x, cache = x[:, :, :num_frames], whole[:, :, num_frames : num_frames + pad]
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return x + self._perceptron(y), cache
        return add_perceptron(x, y, self._layers()), cache


def _if_padded(lens: Optional[Tensor], num_frames: int) -> Optional[Tensor]:
    """Return the lengths (N,) if any may be shorter than ``num_frames``; else None."""
    return None if lens is None or not may_be_padded(lens, num_frames) else lens


class Conv2dSubsampling(nn.Module):
    """Three convolutions, a ConvNeXt layer and a projection: (N, T, F) -> (N, (T - 7) // 2, C).

    The gradient of the first convolution is scaled down to a fifth: every frame and frequency adds
    to it, so it is much larger than that of later layers, and clipping would see little else. The
    first balancer keeps the magnitudes of the few channels near 1; the later ones have room up to
    4, where Swoosh is nearly linear. The ConvNeXt layer is left out for 20 % of the sequences at
    first, so that the convolutions learn to do without it, and for 1.5 % in the end.

    Args:
      in_channels: features per frame, at least 7.
      out_channels: width of the output.
      layer1_channels: channels of the first convolution.
      layer2_channels: of the second, which halves the frame rate and the frequencies.
      layer3_channels: of the third, which halves the frequencies again.
      dropout: dropout of the output; its mask is shared over time.
      mask_padding: zeros follow each utterance in the ConvNeXt layer, so that its last frames do
        not depend on how long the others of the batch are. icefall's sees what the convolutions
        make of the padding.
    """

    subsampling_factor = 2
    trimmed_frames = 7  # at 100 Hz, by convolutions without padding in time
    look_ahead = 13  # at 100 Hz: the trimmed frames, and 3 frames at 50 Hz that the ConvNeXt sees ahead

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layer1_channels: int = 8,
        layer2_channels: int = 32,
        layer3_channels: int = 128,
        dropout: FloatLike = 0.1,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        if in_channels < 7:
            raise ValueError(f"the front end needs at least 7 features per frame, got {in_channels}")
        self.conv = nn.Sequential(
            nn.Conv2d(1, layer1_channels, 3, padding=(0, 1)),
            ScaleGrad(0.2),
            Balancer(layer1_channels, channel_dim=1, max_abs=1.0),
            SwooshR(),
            nn.Conv2d(layer1_channels, layer2_channels, 3, stride=2),
            Balancer(layer2_channels, channel_dim=1, max_abs=4.0),
            SwooshR(),
            nn.Conv2d(layer2_channels, layer3_channels, 3, stride=(1, 2)),
            Balancer(layer3_channels, channel_dim=1, max_abs=4.0),
            SwooshR(),
        )
        layerdrop = ScheduledFloat((0.0, 0.2), (20000.0, 0.015))
        self.convnext = ConvNeXt(layer3_channels, kernel_size=(7, 7), layerdrop_rate=layerdrop)
        self.out_width = (((in_channels - 1) // 2) - 1) // 2
        self.layer3_channels = layer3_channels
        self.out = nn.Linear(self.out_width * layer3_channels, out_channels)
        self.out_whiten = Whiten(1, whitening_limit=whitening_limit(4.0), prob=(0.025, 0.25), grad_scale=0.02)
        self.out_norm = BiasNorm(out_channels)
        self.dropout = Dropout3(dropout, shared_dim=1)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode features (N, T, in_channels) as (N, (T - 7) // 2, out_channels), with lengths."""
        lens = (x_lens - 7) // 2
        x = self.convnext(self.conv(self._as_image(x)), lens if self.mask_padding else None)
        return self._project(x), lens

    def _as_image(self, x: Tensor) -> Tensor:
        """View (N, T, F) as (N, 1, T, F) with strides that make the convolutions after it keep the
        channels innermost.
        """
        return x.unsqueeze(3).permute(0, 3, 1, 2)

    def _project(self, x: Tensor) -> Tensor:
        """Map x (N, layer3_channels, T, out_width) to (N, T, out_channels)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            x = self.out(x.transpose(1, 2).flatten(2))
        else:  # reorder the weight rather than the activations, which are in channels-last format
            weight = self.out.weight.unflatten(1, (self.layer3_channels, self.out_width))
            weight = weight.transpose(1, 2).flatten(1)  # (out_channels, out_width * layer3_channels)
            x = F.linear(x.permute(0, 2, 3, 1).flatten(2), weight, self.out.bias)
        return self.dropout(self.out_norm(self.out_whiten(x)))

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, cached_left_pad: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Encode one chunk (N, T, in_channels) as (N, (T - 7) // 2 - 3, out_channels).

        Also return lengths and the next left context.
        """
        lens = (x_lens - 7) // 2
        x, cached_left_pad = self.convnext.streaming_forward(
            self.conv(self._as_image(x)), cached_left_pad, lens if self.mask_padding else None
        )
        return self._project(x), lens - self.convnext.padding[0], cached_left_pad

    def get_init_states(self, batch_size: int = 1, device: torch.device = torch.device("cpu")) -> Tensor:
        """Return the left context of a new stream: zeros (N, layer3_channels, 3, out_width)."""
        pad = self.convnext.padding[0]
        return torch.zeros(batch_size, self.layer3_channels, pad, self.out_width, device=device)

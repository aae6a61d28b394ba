"""Layers particular to Zipformer: initial scaling, normalisation, activations, dropout (Yao et al.
2023).
"""

import math
import random
from typing import Any, Optional, TypeVar, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.balancer import Balancer
from asr_core.nn.draws import Chance, Drawn, given
from asr_core.nn.scheduled import FloatLike, ScheduledFloat, set_batch_count, whitening_limit
from asr_core.nn.whiten import Whiten, load_training_state, training_state
from asr_core.ops.activation_linear import activation_linear
from asr_core.ops.limits import limit_value, scale_grad
from asr_core.ops.norm import bias_norm, bias_norm_plain
from asr_core.ops.swoosh import swoosh_l, swoosh_plain, swoosh_r

__all__ = [
    "ActivationDropoutAndLinear",
    "Balancer",
    "BiasNorm",
    "Dropout3",
    "FloatLike",
    "ScaleGrad",
    "ScaledConv1d",
    "ScaledConv2d",
    "ScaledLinear",
    "ScheduledFloat",
    "SwooshL",
    "SwooshR",
    "Whiten",
    "limit_or_not",
    "limit_param_value",
    "load_training_state",
    "set_batch_count",
    "strip_training_modules",
    "training_state",
    "whitening_limit",
]

Layer = TypeVar("Layer", bound=Union[nn.Linear, nn.Conv1d, nn.Conv2d])


def limit_param_value(x: Tensor, low: float, high: float, prob: float = 0.6, training: bool = True) -> Tensor:
    """Return ``x``.

    In training, with probability ``prob``, its gradient is turned around where it would leave
    ``[low, high]``.

    With 0.6 the steps back are only slightly more than those out, so a parameter at its limit stays
    there quietly.
    """
    if training and random.random() < prob:
        return limit_value(x, low, high)
    return x


def limit_or_not(x: Tensor, low: float, high: float, prob: float = 0.6) -> Tensor:
    """Do what :func:`limit_param_value` does in training, with a result of the same kind whatever
    is drawn: no parameter.
    """
    return limit_value(x, low, high) if random.random() < prob else limit_value(x, -math.inf, math.inf)


def _scale_init(layer: Layer, initial_scale: float) -> Layer:
    """Scale a layer's initial weight, and make its bias small."""
    with torch.no_grad():
        layer.weight.mul_(initial_scale)
        if layer.bias is not None:
            layer.bias.uniform_(-0.1 * initial_scale, 0.1 * initial_scale)
    return layer


def ScaledLinear(*args: Any, initial_scale: float = 1.0, **kwargs: Any) -> nn.Linear:
    """Return an ``nn.Linear`` whose initial weight is multiplied by ``initial_scale`` and whose
    initial bias is small.

    The last layer of a module on a residual branch starts small (0.01 to 0.5), so that the whole
    model is close to the identity at first and its gradients reach every module at about their
    size. ScaledAdam then lets it grow, since its steps follow the size.
    """
    return _scale_init(nn.Linear(*args, **kwargs), initial_scale)


def ScaledConv1d(*args: Any, initial_scale: float = 1.0, **kwargs: Any) -> nn.Conv1d:
    """Return an ``nn.Conv1d`` initialised as :func:`ScaledLinear`."""
    return _scale_init(nn.Conv1d(*args, **kwargs), initial_scale)


def ScaledConv2d(*args: Any, initial_scale: float = 1.0, **kwargs: Any) -> nn.Conv2d:
    """Return an ``nn.Conv2d`` initialised as :func:`ScaledLinear`."""
    return _scale_init(nn.Conv2d(*args, **kwargs), initial_scale)


class SwooshL(nn.Module):
    """The activation ``log(1 + exp(x - 4)) - 0.08 x - 0.035``.

    :mod:`asr_core.ops.swoosh` explains the numbers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element; any shape (N, ..., C)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return swoosh_plain(x, 4.0, 0.035)
        return swoosh_l(x)


class SwooshR(nn.Module):
    """The activation ``log(1 + exp(x - 1)) - 0.08 x - 0.313261687``.

    :mod:`asr_core.ops.swoosh` explains the numbers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element; any shape (N, ..., C)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return swoosh_plain(x, 1.0, 0.313261687)
        return swoosh_r(x)


class ScaleGrad(nn.Module):
    """Identity that, in training, multiplies the gradient by ``alpha``."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, ..., C) unchanged."""
        if torch.jit.is_scripting() or torch.jit.is_tracing() or not self.training:
            return x
        return scale_grad(x, self.alpha)


class Dropout3(nn.Module):
    """Dropout whose mask is shared along one axis.

    Args:
      p: probability of dropping.
      shared_dim: the axis along which the mask does not change, e.g. time.
    """

    def __init__(self, p: FloatLike, shared_dim: int) -> None:
        super().__init__()
        self.p = p
        self.shared_dim = shared_dim

    def mask(self, x: Tensor) -> Tensor:
        """Draw a scaled mask for ``x`` (N, ..., C), of size 1 along ``shared_dim``."""
        p = float(self.p)
        shape = list(x.shape)
        shape[self.shared_dim] = 1
        return (torch.rand(shape, device=x.device) > p).to(x.dtype).mul_(1.0 / (1.0 - p))

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x (N, ..., C) in training."""
        if not self.training or float(self.p) == 0.0:
            return x
        return x * self.mask(x)


class BiasNorm(Chance):
    """The norm ``x / rms(x - bias) * exp(log_scale)`` over the last axis.

    This is BiasNorm (Yao et al. 2023, section 3.3). It keeps some of the vectors' length and needs
    no epsilon: the bias, which starts at random values near zero, is never exactly x.

    Args:
      num_channels: size of the last axis.
      log_scale: initial value.
      log_scale_min: lower soft limit of the log scale.
      log_scale_max: upper soft limit. With both at 1.5 the scale stays between 0.22 and 4.5: the
        layers around can learn any scale as well, so that this one would drift.
    """

    def __init__(
        self,
        num_channels: int,
        log_scale: float = 1.0,
        log_scale_min: float = -1.5,
        log_scale_max: float = 1.5,
    ) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.bias = nn.Parameter(torch.empty(num_channels).normal_(mean=0.0, std=1e-4))
        self.log_scale_min = log_scale_min
        self.log_scale_max = log_scale_max

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., C)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return bias_norm_plain(x, self.bias, self.log_scale)
        if self.training and self.draws is not None:
            return bias_norm(x, self.bias, given(self))
        log_scale = limit_param_value(
            self.log_scale, self.log_scale_min, self.log_scale_max, training=self.training
        )
        return bias_norm(x, self.bias, log_scale)

    def draw(self, x: Tensor) -> Drawn:
        """Draw whether the scale is limited."""
        return Drawn(tensor=limit_or_not(self.log_scale, self.log_scale_min, self.log_scale_max))


class ActivationDropoutAndLinear(Chance):
    """Swoosh, dropout and a linear map that keep only their input for the backward pass.

    Args:
      in_channels: size of the input's last axis.
      out_channels: size of the output's.
      bias: whether the linear map has one.
      activation: "SwooshL" or "SwooshR".
      dropout_p: dropout probability.
      dropout_shared_dim: axis along which the dropout mask is shared.
      initial_scale: see :func:`ScaledLinear`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        activation: str = "SwooshL",
        dropout_p: FloatLike = 0.0,
        dropout_shared_dim: int = 0,
        initial_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if activation not in ("SwooshL", "SwooshR"):
            raise ValueError(f"activation must be SwooshL or SwooshR, not {activation!r}")
        linear = ScaledLinear(in_channels, out_channels, bias=bias, initial_scale=initial_scale)
        self.weight = linear.weight
        self.bias: Optional[nn.Parameter]
        self.register_parameter("bias", linear.bias)
        self.activation = activation
        self.dropout = Dropout3(dropout_p, dropout_shared_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C_in) to (..., C_out)."""
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            if self.activation == "SwooshL":
                x = swoosh_plain(x, 4.0, 0.035)
            else:
                x = swoosh_plain(x, 1.0, 0.313261687)
            return F.linear(x, self.weight, self.bias)
        return activation_linear(x, self.weight, self.bias, self.activation, self._mask(x))

    def _mask(self, x: Tensor) -> Optional[Tensor]:
        """Return the dropout mask for x (..., C_in), if there is dropout."""
        if self.training and self.draws is not None:
            return self.draws.tensors[self.index]
        return self.dropout.mask(x) if self.training and float(self.dropout.p) > 0.0 else None

    def draw(self, x: Tensor) -> Drawn:
        """Draw the dropout mask for the sequences of x (T, N, C); the input of this module has as
        many.
        """
        if float(self.dropout.p) == 0.0:
            return Drawn()
        return Drawn(tensor=self.dropout.mask(x.detach()[..., :1].expand(-1, -1, self.weight.shape[1])))


_TRAINING_ONLY = (Balancer, Whiten, Dropout3, ScaleGrad)


def strip_training_modules(model: nn.Module) -> nn.Module:
    """Replace, in place, the modules that only act in training by identities.

    Return the model, in evaluation mode.

    The dropout inside :class:`ActivationDropoutAndLinear` goes too: what is left can be scripted,
    traced and deployed.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _TRAINING_ONLY):
                setattr(module, name, nn.Identity())
    return model.eval()

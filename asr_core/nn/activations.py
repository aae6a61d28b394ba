"""Activations by name."""

from typing import Callable, Dict

from torch import Tensor, nn

from asr_core.ops.double_swish import double_swish


class DoubleSwish(nn.Module):
    """The activation ``x sigmoid(x - 1)``, close to Swish applied twice."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return double_swish(x)


ACTIVATIONS: Dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "double_swish": DoubleSwish,
    "relu": nn.ReLU,
}

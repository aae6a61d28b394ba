"""The two Swoosh activations of Zipformer (Yao et al. 2023, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def swoosh_l(x: Tensor) -> Tensor:
    """``log(1 + exp(x - 4)) - 0.08 x - 0.035``, elementwise; any shape."""
    return F.softplus(x - 4.0) - 0.08 * x - 0.035


def swoosh_r(x: Tensor) -> Tensor:
    """``log(1 + exp(x - 1)) - 0.08 x - 0.313261687``, elementwise; any shape."""
    return F.softplus(x - 1.0) - 0.08 * x - 0.313261687

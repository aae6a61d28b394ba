"""LSTM layers with projection and limited cells."""

import warnings
from typing import Final, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.recompute import products_not_kept

# torch's warnings about kernels that are slower than others, if there are no others
warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")


class LstmLayer(nn.Module):
    """One direction, one layer (Hochreiter and Schmidhuber 1997; projection: Sak et al. 2014,
    https://arxiv.org/abs/1402.1128).

    ``c' = clip(sigmoid(f) c + sigmoid(i) tanh(g))``, ``h' = W_hr (sigmoid(o) tanh(c'))`` with the
    gates i, f, g, o from one matrix on input and h, and one bias, which begins at 0.

    Args:
      input_size: width I of the input.
      hidden_size: width H of the cells.
      proj_size: width P of output and recurrence; 0: no projection, P is H.
      cell_clip: cells are kept within -cell_clip .. cell_clip; 0: no limit, and a faster kernel.
    """

    has_projection: Final[bool]  # a constant for scripting, which then leaves the other branch out

    def __init__(self, input_size: int, hidden_size: int, proj_size: int = 0, cell_clip: float = 0.0) -> None:
        super().__init__()
        if min(input_size, hidden_size) < 1 or proj_size < 0 or cell_clip < 0:
            raise ValueError(
                f"sizes of an LSTM must be positive, got {input_size}, {hidden_size}, {proj_size}, "
                f"and cell_clip {cell_clip}"
            )
        self.hidden_size = hidden_size
        self.output_size = proj_size or hidden_size
        self.has_projection = proj_size > 0
        self.cell_clip = float(cell_clip)
        bound = hidden_size**-0.5
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, self.output_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        if self.has_projection:
            self.weight_hr = nn.Parameter(torch.empty(proj_size, hidden_size).uniform_(-bound, bound))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Run over a sequence, in float32 even under autocast: errors of half precision add up over
        the steps.

        Args:
          x: (N, T, I).
          h: (N, P), the output before the sequence.
          c: (N, H), the cells before the sequence.

        Returns:
          outputs (N, T, P), the last output (N, P), the last cells (N, H).
        """
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return self._run(x, h, c)
        # torch's kernel for the CPU computes in the memory of products
        with torch.autocast(x.device.type, enabled=False), products_not_kept():
            return self._run(x.to(self.bias.dtype), h.to(self.bias.dtype), c.to(self.bias.dtype))

    def _run(self, x: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Run over x (N, T, I) by torch's kernel, or frame by frame where cells are limited."""
        if self.cell_clip > 0:
            return self._clipped(x, h, c)
        no_bias = torch.zeros_like(self.bias)  # torch wants two biases
        weights = [self.weight_ih, self.weight_hh, self.bias, no_bias]
        if self.has_projection:
            weights.append(self.weight_hr)
        y, h, c = torch.lstm(
            x, [h.unsqueeze(0), c.unsqueeze(0)], weights, True, 1, 0.0, self.training, False, True
        )
        return y, h.squeeze(0), c.squeeze(0)

    def _clipped(self, x: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Run over x (N, T, I) frame by frame; h (N, P), c (N, H)."""
        gates = torch.nn.functional.linear(x, self.weight_ih, self.bias)
        outputs = []
        for t in range(x.size(1)):
            i, f, g, o = (gates[:, t] + torch.mm(h, self.weight_hh.t())).chunk(4, dim=1)
            c = (torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)).clamp(
                -self.cell_clip, self.cell_clip
            )
            h = torch.sigmoid(o) * torch.tanh(c)
            if self.has_projection:
                h = torch.mm(h, self.weight_hr.t())
            outputs.append(h)
        return torch.stack(outputs, dim=1), h, c

    def extra_repr(self) -> str:
        """Return the sizes for ``print(model)``."""
        sizes = f"{self.weight_ih.size(1)}, {self.hidden_size}, output_size={self.output_size}"
        return f"{sizes}, cell_clip={self.cell_clip:g}"

"""The parameters of one optimizer group, stacked by shape: the passes over all their elements."""

from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import Tensor

_PIECE = 16384  # elements that a CPU kernel works on at a time


class Stack:
    """Parameters of equal dtype and shape, whose state is stacked on a new axis 0.

    Attributes:
      params: the n parameters.
      column: the shape (n, 1, ...) of one value per parameter.
      first: position of the first of them among all parameters of the group.
      exp_avg_sq, delta: averages of the squared gradient and of the step, (n, *shape).
    """

    def __init__(self, params: List[Tensor], first: int, state: Dict[str, Any]) -> None:
        self.params = params
        self.column = (len(params), *([1] * params[0].dim()))
        self.first = first
        self.is_scalar = params[0].numel() == 1
        for name in ("delta", "exp_avg_sq"):
            if name not in state:
                state[name] = torch.zeros(
                    (len(params), *params[0].shape), dtype=params[0].dtype, device=params[0].device
                )
        self.delta, self.exp_avg_sq = state["delta"], state["exp_avg_sq"]

    def part_of(self, flat: Tensor) -> Tensor:
        """This stack's part of ``flat`` (..., N), one value per parameter of the group, as (..., n, 1, ...); a view."""
        part = flat[..., self.first : self.first + len(self.params)]
        return part.view(*flat.shape[:-1], *self.column)


class TorchPasses:
    """Passes over all elements by plain tensor operations, on any device."""

    def __init__(self, stacks: List[Stack]) -> None:
        self.stacks = stacks
        self._grads: List[Tensor] = []

    def sums(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Sums of g^2, p g and p^2 of each parameter p with gradient g, (N,)."""
        self._grads = [
            torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in s.params])
            for s in self.stacks
        ]
        parts = []
        for stack, grads in zip(self.stacks, self._grads):
            g, p = (
                grads.flatten(1) if grads.dim() > 1 else grads[:, None],
                torch.stack(stack.params).reshape(len(stack.params), -1),
            )
            parts.append(
                torch.stack([torch.linalg.vecdot(g, g), torch.linalg.vecdot(p, g), torch.linalg.vecdot(p, p)])
            )
        gg, pg, pp = torch.cat(parts, dim=1)
        return gg, pg, pp

    def step(
        self,
        betas: Tuple[float, float],
        weight: float,
        factor: float,
        eps: float,
        rate: Tensor,
        growth: Tensor,
    ) -> None:
        """Update averages and parameters; after :meth:`sums`.

        v = beta2 v + weight g^2; m = beta1 m + rate g / (factor sqrt(v) + eps) + growth p; p += m, with ``rate`` and ``growth`` (N,).
        """
        for stack, grads in zip(self.stacks, self._grads):
            v, m = stack.exp_avg_sq, stack.delta
            v.mul_(betas[1]).addcmul_(grads, grads, value=weight)
            m.mul_(betas[0]).addcdiv_(grads * stack.part_of(rate), v.sqrt().mul_(factor).add_(eps))
            m.addcmul_(torch.stack(stack.params), stack.part_of(growth))
            torch._foreach_add_(stack.params, list(m.unbind()))
        self._grads = []


class CpuPasses:
    """The same by two compiled kernels; for contiguous float32 parameters on the CPU."""

    def __init__(self, stacks: List[Stack]) -> None:
        self.params = [p for stack in stacks for p in stack.params]
        v_at = [view.data_ptr() for stack in stacks for view in stack.exp_avg_sq.unbind()]
        m_at = [view.data_ptr() for stack in stacks for view in stack.delta.unbind()]
        pieces = [
            (k, at, min(_PIECE, p.numel() - at))
            for k, p in enumerate(self.params)
            for at in range(0, p.numel(), _PIECE)
        ]
        self._owner, at, self._sizes = np.array(pieces, dtype=np.int64).reshape(-1, 3).T.copy()
        self._offset = 4 * at
        self._starts = np.flatnonzero(at == 0)
        self._v_at, self._m_at = self._spread(v_at), self._spread(m_at)
        self._zeros = torch.zeros(0)
        self._keep: List[Tensor] = []

    @staticmethod
    def fit(stacks: List[Stack]) -> bool:
        """Whether the kernels can work on these parameters."""
        from asr_core.ops.cpu.dispatch import usable

        params = [p for stack in stacks for p in stack.params]
        averages = [t for stack in stacks for t in (stack.exp_avg_sq, stack.delta)]
        return usable(*params, *averages) and all(
            t.is_contiguous() and t.numel() for t in (*params, *averages)
        )

    def sums(self) -> Tuple[Tensor, Tensor, Tensor]:
        """See :meth:`TorchPasses.sums`."""
        from asr_core.ops.cpu.adam import gradient_sums

        self._keep = [self._grad(p) for p in self.params]
        self._p_at = self._spread([p.data_ptr() for p in self.params])
        self._g_at = self._spread([g.data_ptr() for g in self._keep])
        sums = np.empty((len(self._owner), 3))
        gradient_sums(len(sums), 4, [a.ctypes.data for a in (self._p_at, self._g_at, self._sizes, sums)])
        gg, pg, pp = torch.from_numpy(np.add.reduceat(sums, self._starts, axis=0).T.astype(np.float32))
        return gg, pg, pp

    def step(
        self,
        betas: Tuple[float, float],
        weight: float,
        factor: float,
        eps: float,
        rate: Tensor,
        growth: Tensor,
    ) -> None:
        """See :meth:`TorchPasses.step`."""
        from asr_core.ops.cpu.adam import adam_step

        rates = torch.stack([rate, growth], dim=1).numpy().astype(np.float64)[self._owner]
        arrays = (self._p_at, self._g_at, self._v_at, self._m_at, self._sizes, rates)
        adam_step(len(rates), 4, [a.ctypes.data for a in arrays], [*betas, weight, factor, eps])
        self._keep = []

    def _grad(self, p: Tensor) -> Tensor:
        if p.grad is not None:
            return p.grad.contiguous()
        if self._zeros.numel() < p.numel():
            self._zeros = torch.zeros(p.numel())
        return self._zeros

    def _spread(self, addresses: List[int]) -> Any:
        return np.array(addresses, dtype=np.int64)[self._owner] + self._offset

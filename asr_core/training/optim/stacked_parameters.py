"""The parameters of one optimizer group, stacked by shape: the passes over all their elements."""

from typing import Any, Dict, List, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable

if HAS_NUMBA:
    from asr_core.ops.cpu import adam as kernels

# Elements that a CPU kernel works on at a time: threads share large tensors, and all four arrays of
# a piece fit a cache.
_PIECE = 16384
_GRAIN = 4  # pieces worth a thread


class Sums(NamedTuple):
    """Sums over each parameter p with gradient g.

    Attributes:
      gg: (N,), of g^2.
      pg: (N,), of p g.
      pp: (N,), of p^2.
    """

    gg: Tensor
    pg: Tensor
    pp: Tensor


class StepSizes(NamedTuple):
    """The numbers of a step.

    It is ``v = beta2 v + weight g^2``, ``m = beta1 m + rate g / (factor sqrt(v) + eps) + growth p``
    and ``p += m``.

    Attributes:
      beta1: decay of the momentum m.
      beta2: decay of the average v of the squared gradient.
      weight: weight of the squared gradient in v.
      factor: on the root of v; corrects that v starts at zero.
      eps: added to the denominator.
      rate: (N,), of each parameter; negative.
      growth: (N,), relative change of each parameter's size.
    """

    beta1: float
    beta2: float
    weight: float
    factor: float
    eps: float
    rate: Tensor
    growth: Tensor


class Passes(Protocol):
    """The two passes of a step over all elements."""

    def sums(self) -> Sums:
        """Add up what the step sizes depend on; a missing gradient counts as zero."""

    def step(self, sizes: StepSizes) -> None:
        """Update averages and parameters; after :meth:`sums`."""


class Stack:
    """Parameters of equal dtype and shape, whose state is stacked on a new axis 0.

    Attributes:
      params: the n parameters.
      column: the shape (n, 1, ...) of one value per parameter.
      first: position of the first of them among all N parameters of the group.
      is_scalar: whether they have one element each.
      exp_avg_sq: (n, ...), averages of the squared gradients.
      delta: (n, ...), momenta: averages of the steps.
    """

    def __init__(self, params: List[Tensor], first: int, state: Dict[str, Any]) -> None:
        self.params = params
        self.column = (len(params), *([1] * params[0].dim()))
        self.first = first
        self.is_scalar = params[0].numel() == 1
        shape = (len(params), *params[0].shape)
        for name in ("delta", "exp_avg_sq"):
            if name not in state:
                state[name] = torch.zeros(shape, dtype=params[0].dtype, device=params[0].device)
        self.delta: Tensor = state["delta"]
        self.exp_avg_sq: Tensor = state["exp_avg_sq"]

    def part_of(self, flat: Tensor) -> Tensor:
        """Return this stack's part of ``flat`` (..., N), one value per parameter of the group, as a
        view (..., n, 1, ...).
        """
        part = flat[..., self.first : self.first + len(self.params)]
        return part.view(*flat.shape[:-1], *self.column)


class TorchPasses:
    """:class:`Passes` by plain tensor operations, on any device."""

    def __init__(self, stacks: List[Stack]) -> None:
        self.stacks = stacks
        self._grads: List[Tensor] = []

    def sums(self) -> Sums:
        """See :class:`Passes`."""
        self._grads = [
            torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in s.params])
            for s in self.stacks
        ]
        parts = []
        for stack, grads in zip(self.stacks, self._grads):
            g = grads.reshape(len(stack.params), -1)  # (n, numel)
            p = torch.stack(stack.params).reshape(len(stack.params), -1)
            dots = [torch.linalg.vecdot(g, g), torch.linalg.vecdot(p, g), torch.linalg.vecdot(p, p)]
            parts.append(torch.stack(dots))
        return Sums._make(torch.cat(parts, dim=1).unbind())

    def step(self, sizes: StepSizes) -> None:
        """See :class:`Passes`."""
        for stack, grads in zip(self.stacks, self._grads):
            v, m = stack.exp_avg_sq, stack.delta
            v.mul_(sizes.beta2).addcmul_(grads, grads, value=sizes.weight)
            rate = grads * stack.part_of(sizes.rate)
            m.mul_(sizes.beta1).addcdiv_(rate, v.sqrt().mul_(sizes.factor).add_(sizes.eps))
            m.addcmul_(torch.stack(stack.params), stack.part_of(sizes.growth))
            torch._foreach_add_(stack.params, list(m.unbind()))
        self._grads = []


class CpuPasses:
    """:class:`Passes` by two compiled kernels; for contiguous float32 parameters on the CPU."""

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
        self._offset = 4 * at  # bytes from the beginning of the parameter
        self._starts = np.flatnonzero(at == 0)
        self._v_at, self._m_at = self._spread(v_at), self._spread(m_at)
        self._p_at, self._g_at = self._v_at[:0], self._v_at[:0]  # of the step in progress
        self._zeros = torch.zeros(0)
        self._keep: List[Tensor] = []  # gradients whose addresses are in use

    @staticmethod
    def fit(stacks: List[Stack]) -> bool:
        """Return whether the kernels can work on these parameters."""
        params = [p for stack in stacks for p in stack.params]
        averages = [t for stack in stacks for t in (stack.exp_avg_sq, stack.delta)]
        tensors = params + averages
        return usable(*tensors) and all(t.is_contiguous() and t.numel() for t in tensors)

    def sums(self) -> Sums:
        """See :class:`Passes`."""
        self._keep = [self._grad(p) for p in self.params]
        self._p_at = self._spread([p.data_ptr() for p in self.params])
        self._g_at = self._spread([g.data_ptr() for g in self._keep])
        sums = np.empty((len(self._owner), 3))
        args = kernels.GradientSums(
            p_at=self._p_at.ctypes.data,
            g_at=self._g_at.ctypes.data,
            sizes=self._sizes.ctypes.data,
            sums=sums.ctypes.data,
        )
        kernels.gradient_sums(len(sums), _GRAIN, args)
        totals = np.add.reduceat(sums, self._starts, axis=0).T.astype(np.float32)  # (3, N)
        return Sums._make(torch.from_numpy(totals).unbind())

    def step(self, sizes: StepSizes) -> None:
        """See :class:`Passes`."""
        rates = torch.stack([sizes.rate, sizes.growth], dim=1).numpy().astype(np.float64)[self._owner]
        args = kernels.AdamStep(
            p_at=self._p_at.ctypes.data,
            g_at=self._g_at.ctypes.data,
            v_at=self._v_at.ctypes.data,
            m_at=self._m_at.ctypes.data,
            sizes=self._sizes.ctypes.data,
            rates=rates.ctypes.data,
            beta1=sizes.beta1,
            beta2=sizes.beta2,
            weight=sizes.weight,
            factor=sizes.factor,
            eps=sizes.eps,
        )
        kernels.adam_step(len(rates), _GRAIN, args)
        self._keep = []

    def _grad(self, p: Tensor) -> Tensor:
        """Return the gradient of ``p``, or zeros."""
        if p.grad is not None:
            return p.grad.contiguous()
        if self._zeros.numel() < p.numel():
            self._zeros = torch.zeros(p.numel())
        return self._zeros

    def _spread(self, addresses: List[int]) -> np.ndarray:
        """Return the addresses of the pieces from those of the parameters or their like."""
        return np.array(addresses, dtype=np.int64)[self._owner] + self._offset

"""The parameters of one optimizer group, stacked by shape: the passes over all their elements."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from asr_core.ops.cpu.dispatch import HAS_NUMBA, usable
from asr_core.ops.gpu import dispatch as gpu
from asr_core.training.optim.clipping import GradientClipper
from asr_core.training.optim.shards import Shards

gpu_kernels = gpu.deferred("optim")
if HAS_NUMBA:
    from asr_core.ops.cpu import adam as kernels

# Elements that a CPU kernel works on at a time: threads share large tensors, and all four arrays of
# a piece fit a cache.
_PIECE = 16384
_GRAIN = 4  # pieces worth a thread
_MOMENTS = ("exp_avg_sq", "delta")


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
      weight: weight of the squared gradient in v, a scalar.
      factor: on the root of v; corrects that v starts at zero.
      eps: added to the denominator.
      rate: (N,), of each parameter; negative.
      growth: (N,), relative change of each parameter's size.
      good: a bool scalar; where it is false, ``gated`` passes change nothing.
    """

    beta1: float
    beta2: float
    weight: Tensor
    factor: float
    eps: float
    rate: Tensor
    growth: Tensor
    good: Tensor


class Passes(Protocol):
    """The two passes of a step over all elements.

    Attributes:
      gated: whether :meth:`step` leaves it to the device to see if the step is good. Of other
        passes it is called for good steps alone.
    """

    gated: bool

    def sums(self) -> Sums:
        """Add up what the step sizes depend on; a missing gradient counts as zero."""

    def step(self, sizes: StepSizes) -> None:
        """Update averages and parameters; after :meth:`sums`."""


class Stack:
    """Parameters of equal dtype and shape, whose state is stacked on a new axis 0.

    Args:
      params: the n parameters, or this process' parts of them.
      first: see the attribute.
      numel: number of elements of each of the whole parameters.
      state: the state of the first of them.

    Attributes:
      params: as above.
      column: the shape (n, 1, ...) of one value per parameter.
      first: position of the first of them among all N parameters of the group.
      numel: as above.
      is_scalar: whether they have one element each.
      exp_avg_sq: (n, ...), averages of the squared gradients.
      delta: (n, ...), momenta: averages of the steps.
    """

    def __init__(self, params: List[Tensor], first: int, numel: int, state: Dict[str, Any]) -> None:
        self.params = params
        self.column = (len(params), *([1] * params[0].dim()))
        self.first = first
        self.numel = numel
        self.is_scalar = numel == 1
        shape = (len(params), *params[0].shape)
        for name in _MOMENTS:
            if name not in state:
                state[name] = torch.zeros(shape, dtype=params[0].dtype, device=params[0].device)
        self.delta: Tensor = state["delta"]
        self.exp_avg_sq: Tensor = state["exp_avg_sq"]

    def moved_to(self, first: int) -> "Stack":
        """Return the same parameters and state at another position of the group."""
        moments = {name: getattr(self, name) for name in _MOMENTS}
        return Stack(self.params, first, self.numel, moments)

    def part_of(self, flat: Tensor) -> Tensor:
        """Return this stack's part of ``flat`` (..., N), one value per parameter of the group, as a
        view (..., n, 1, ...).
        """
        part = flat[..., self.first : self.first + len(self.params)]
        return part.view(*flat.shape[:-1], *self.column)


class TorchPasses:
    """:class:`Passes` by plain tensor operations, on any device."""

    gated = False

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
            v.mul_(sizes.beta2).addcmul_(grads, grads, value=float(sizes.weight))
            rate = grads * stack.part_of(sizes.rate)
            m.mul_(sizes.beta1).addcdiv_(rate, v.sqrt().mul_(sizes.factor).add_(sizes.eps))
            m.addcmul_(torch.stack(stack.params), stack.part_of(sizes.growth))
            torch._foreach_add_(stack.params, list(m.unbind()))
        self._grads = []


class CpuPasses:
    """:class:`Passes` by two compiled kernels; for contiguous float32 parameters on the CPU."""

    gated = False

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
        tensors = _all_tensors(stacks)
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
            weight=float(sizes.weight),
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


class GpuPasses:
    """:class:`Passes` by three launches of kernels over all parameters, whatever their number; for
    contiguous float32 parameters on one GPU.
    """

    gated = True

    def __init__(self, stacks: List[Stack]) -> None:
        self.params = [p for stack in stacks for p in stack.params]
        device = self.params[0].device
        self._table = gpu_kernels.Table([p.numel() for p in self.params], device)
        moments = [[t.data_ptr() for s in stacks for t in getattr(s, n).unbind()] for n in _MOMENTS]
        self._moments = torch.tensor(moments, device=device)
        self._at = self._moments  # addresses of this step's parameters and gradients
        self._keep: List[Optional[Tensor]] = []  # gradients whose addresses are in use

    @staticmethod
    def fit(stacks: List[Stack]) -> bool:
        """Return whether the kernels can work on these parameters."""
        tensors = _all_tensors(stacks)
        plain = all(type(t) in (Tensor, Parameter) and t.is_contiguous() and t.numel() for t in tensors)
        alike = {(t.dtype, t.device) for t in tensors} == {(torch.float32, tensors[0].device)}
        return alike and plain and gpu.usable(*tensors)

    def sums(self) -> Sums:
        """See :class:`Passes`."""
        self._keep = [None if p.grad is None else p.grad.contiguous() for p in self.params]
        g_at = [0 if g is None else g.data_ptr() for g in self._keep]
        self._at = self._table.addresses([p.data_ptr() for p in self.params], g_at)
        return Sums._make(gpu_kernels.gradient_sums(self._table, self._at).unbind())

    def step(self, sizes: StepSizes) -> None:
        """See :class:`Passes`."""
        gpu_kernels.adam_step(
            self._table,
            self._at,
            self._moments,
            torch.stack([sizes.rate, sizes.growth]),
            torch.stack([sizes.weight.float(), sizes.good.float()]),
            beta1=sizes.beta1,
            beta2=sizes.beta2,
            factor=sizes.factor,
            eps=sizes.eps,
        )
        self._keep = []


def _all_tensors(stacks: List[Stack]) -> List[Tensor]:
    """Return parameters, averages and momenta."""
    return [t for s in stacks for t in (*s.params, s.exp_avg_sq, s.delta)]


class DividedPasses:
    """:class:`Passes` over this process' parts of parameters, some of which may be empty.

    Args:
      stacks: the stacks.
      shards: the division.
    """

    def __init__(self, stacks: List[Stack], shards: Shards) -> None:
        self.shards = shards
        self.params = [p for stack in stacks for p in stack.params]
        here, first = [], 0
        for stack in stacks:
            if stack.params[0].numel():
                here.append(stack.moved_to(first))
                first += len(stack.params)
        columns = [i for i, p in enumerate(self.params) if p.numel()]
        self._columns = torch.tensor(columns, device=self.params[0].device)
        self._inner = _passes_for(here) if here else None
        self.gated = self._inner is not None and self._inner.gated

    def sums(self) -> Sums:
        """See :class:`Passes`."""
        dtype = torch.float64 if self.params[0].dtype == torch.float64 else torch.float32
        values = self._columns.new_zeros(3, len(self.params), dtype=dtype)
        if self._inner is not None:
            values.index_copy_(1, self._columns, torch.stack(self._inner.sums()).to(values.dtype))
        return Sums._make(self.shards.sum(values, self.params).unbind())

    def step(self, sizes: StepSizes) -> None:
        """See :class:`Passes`."""
        if self._inner is not None:
            rate, growth = sizes.rate[self._columns], sizes.growth[self._columns]
            self._inner.step(sizes._replace(rate=rate, growth=growth))


def _passes_for(stacks: List[Stack]) -> Passes:
    """Return the fastest passes over the parameters."""
    if GpuPasses.fit(stacks):
        return GpuPasses(stacks)
    return CpuPasses(stacks) if CpuPasses.fit(stacks) else TorchPasses(stacks)


class ParameterGroup:
    """A parameter group: its stacks, and one value per parameter for what is not per element.

    Attributes:
      options: the group's entry in ``param_groups``.
      names: the N parameters' names, in the order of the stacks.
      state: the state of the first stack, which also holds what the group has once.
      states: the states of the stacks.
      passes: the work on all elements.
      clipper: the limit of the gradient norm.
      scalar: (N,) bool, parameters of one element.
      numel: (N,), numbers of elements.
      rms: (N,), sizes; the optimizer's state holds views of this and the next two.
      size_grads: (period, N), the last gradients with respect to the logarithms of the sizes.
      size_avg_sq: (N,), average of their squares.
    """

    def __init__(
        self,
        options: Dict[str, Any],
        params: List[Tensor],
        names: List[str],
        states: Mapping[Tensor, Dict[str, Any]],
        shards: Shards,
    ) -> None:
        by_shape: Dict[Tuple, List[int]] = {}
        for i, p in enumerate(params):
            by_shape.setdefault((str(p.dtype), *shards.shape(p)), []).append(i)
        order = [by_shape[key] for key in sorted(by_shape)]
        self.options = options
        self.names = [names[i] for members in order for i in members]
        self.state = states[params[order[0][0]]]
        self.states = [states[params[members[0]]] for members in order]
        self.stacks: List[Stack] = []
        for members, state in zip(order, self.states):
            state.setdefault("step", 0)
            first = sum(len(s.params) for s in self.stacks)
            numel = shards.shape(params[members[0]]).numel()
            self.stacks.append(Stack([params[i] for i in members], first, numel, state))
        self.passes: Passes = (
            DividedPasses(self.stacks, shards) if shards.divided else _passes_for(self.stacks)
        )
        counts = [(s.is_scalar, s.numel) for s in self.stacks for _ in s.params]
        device = params[0].device
        self.clipper = GradientClipper(options, self.state, device)
        dtype = torch.float64 if params[0].dtype == torch.float64 else torch.float32
        self.scalar = torch.tensor([is_scalar for is_scalar, _ in counts], device=device)
        self.numel = torch.tensor([n for _, n in counts], dtype=dtype, device=device)
        self.rms, self.size_avg_sq = torch.ones_like(self.numel), torch.zeros_like(self.numel)
        self.size_grads = self.numel.new_zeros(options["size_update_period"], len(counts))
        self._share_state(shards)

    @torch.no_grad()
    def _share_state(self, shards: Shards) -> None:
        """Make the state's per-parameter entries views of this group's vectors, which take over
        what was loaded.
        """
        sizes = {"param_rms": self.rms, "scale_exp_avg_sq": self.size_avg_sq, "scale_grads": self.size_grads}
        for stack, state in zip(self.stacks, self.states):
            if stack.is_scalar:
                continue
            if "param_rms" not in state:
                squares = torch.stack([p.float().square().sum() for p in stack.params])
                rms = (shards.sum(squares, stack.params) / stack.numel).sqrt()
                state["param_rms"] = rms.view(stack.column)
            for name, flat in sizes.items():
                view = stack.part_of(flat)
                if name in state:
                    view.copy_(state[name])
                state[name] = view

"""Running averages of a model's weights over training."""

from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from asr_core.ops.gpu import dispatch as gpu
from asr_core.training.optim.shards import as_part, local, own_rows

gpu_kernels = gpu.deferred("optim")


def _fits_kernel(average: Tensor, current: Tensor) -> bool:
    """Return whether a kernel can move the mean ``average`` of ``current``."""
    plain = all(type(t) is Tensor and t.is_contiguous() and t.numel() for t in (average, current))
    return plain and current.dtype == torch.float32 and gpu.usable(current)


class _KernelMeans:
    """Means in float64 of float32 tensors on one GPU, all of which one launch moves.

    Args:
      pairs: the means and their tensors.
    """

    def __init__(self, pairs: List[Tuple[Tensor, Tensor]]) -> None:
        self._pairs = pairs
        self._table = gpu_kernels.Table([t.numel() for _, t in pairs], pairs[0][1].device)

    def move(self, weight: float) -> None:
        """Move the means by this share of the way to the tensors."""
        means, tensors = ([t.data_ptr() for t in column] for column in zip(*self._pairs))
        gpu_kernels.move_means(self._table, self._table.addresses(means, tensors), weight)


class WeightMean:
    """Mean, in float64, that moves towards a model's weights.

    :meth:`state_dict` has the model's names.

    Float64, because a mean over 100 000 batches moves by less than float32 resolves.

    Args:
      model: its state dict's floating-point tensors are averaged; tensors that share storage are
        averaged once, and of divided ones what this process has.
    """

    def __init__(self, model: nn.Module) -> None:
        self._current: List[Tensor] = []
        self._average: List[Tensor] = []
        self._others: Dict[str, Tensor] = {}
        self._index: Dict[str, int] = {}
        self._averaged: Dict[str, Tensor] = {}
        seen: Dict[int, int] = {}
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                self._others[name] = value
                continue
            self._averaged[name], tensor = value, local(value)
            if tensor.data_ptr() not in seen or not tensor.numel():
                seen[tensor.data_ptr()] = len(self._current)
                self._current.append(tensor)
                self._average.append(tensor.to(torch.float64, copy=True))
            self._index[name] = seen[tensor.data_ptr()]
        pairs = list(zip(self._average, self._current))
        fit = [_fits_kernel(*pair) for pair in pairs]
        self._pairs = [pair for pair, fits in zip(pairs, fit) if not fits]
        self._kernel = _KernelMeans([p for p, fits in zip(pairs, fit) if fits]) if any(fit) else None

    @torch.no_grad()
    def _move(self, weight: float) -> None:
        """Move the mean by this share of the way to the present weights."""
        if weight == 1.0:  # whatever was there before, even if it was not finite
            torch._foreach_copy_(self._average, self._current)
            return
        if self._kernel is not None:
            self._kernel.move(weight)
        if self._pairs:
            torch._foreach_mul_([average for average, _ in self._pairs], 1.0 - weight)
        for average, current in self._pairs:
            average.add_(current, alpha=weight)

    def state_dict(self) -> Dict[str, Tensor]:
        """Return the average under the model's names: float64, so that a resumed run continues
        exactly.
        """
        out = {name: as_part(self._average[i], self._averaged[name]) for name, i in self._index.items()}
        out.update(self._others)
        return out

    @torch.no_grad()
    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Load what :meth:`state_dict` returned (or icefall's ``model_avg``)."""
        for name, i in self._index.items():
            self._average[i].copy_(own_rows(state[name], self._averaged[name]))


class ModelAverage(WeightMean):
    """Mean, in float64, of snapshots of a model taken every ``period`` batches since the start of
    training.

    Args:
      model: see :class:`WeightMean`.
      period: batches between snapshots.
    """

    def __init__(self, model: nn.Module, period: int) -> None:
        super().__init__(model)
        self.period = period

    def update(self, batch_idx_train: int) -> None:
        """Take a snapshot if one is due after ``batch_idx_train`` batches."""
        if batch_idx_train % self.period == 0:
            self._move(self.period / batch_idx_train)

    def continue_from(self, state: Dict[str, Tensor], batch: int, batch_idx_train: int) -> None:
        """Set the average as if the model had had its present weights since
        ``batch``, when its average was ``state``.
        """
        self.load_state_dict(state)
        then, now = batch // self.period, batch_idx_train // self.period
        if now > then:
            self._move(1.0 - then / now)

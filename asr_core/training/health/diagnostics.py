"""Statistics of activations, gradients and parameters, to find the module that misbehaves."""

import logging
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import torch
from torch import Tensor, nn

from asr_core.training.health.inf_check import ModuleHook, tensors_in
from asr_core.utils.files import write_text_atomic

NUM_BATCHES = 6  # enough for stable percentiles, and done within a minute on a CPU

# Largest axis whose eigenvalues are computed: their cost grows with the third power of its size.
_MAX_SIZE = 512
_PERCENTILES = (0, 10, 25, 50, 75, 90, 100)


class AxisStats:
    """Statistics for each index of one axis, over all tensors added.

    Args:
      size: length of the axis.

    Attributes:
      count: number of rows added.
      sums: by name of statistic, sums over the rows (size,), float64.
      high: largest values (size,).
      low: smallest values (size,).
      products: sums of the products of each pair of values (size, size).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self.sums: Dict[str, Tensor] = {}
        self.high: Optional[Tensor] = None
        self.low: Optional[Tensor] = None
        self.products: Optional[Tensor] = None

    def add(self, rows: Tensor) -> None:
        """Add the values of a tensor.

        Args:
          rows: all its elements, with the axis last (N, size).
        """
        rows = rows.detach().float()
        self.count += len(rows)
        new = {"abs": rows.abs(), "positive": (rows > 0).float(), "value": rows, "square": rows * rows}
        for name, values in new.items():
            total = values.sum(0).cpu().double()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        high, low = rows.amax(0).cpu(), rows.amin(0).cpu()
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        if 1 < self.size <= _MAX_SIZE:
            products = (rows.T @ rows).cpu()
            self.products = products if self.products is None else self.products + products

    def values(self) -> Dict[str, Tensor]:
        """Return the statistics by name, each (size,).

        ``abs``, ``positive`` (the share of values above 0) and ``value`` are means; ``eigs`` are
        the square roots of the eigenvalues of the matrix of second moments, which show how many
        directions are used.
        """
        means = {name: total / self.count for name, total in self.sums.items()}
        out = {name: means[name] for name in ("abs", "positive", "value")}
        out["rms"] = means["square"].sqrt()
        if self.high is not None and self.low is not None:
            out["max"], out["min"] = self.high, self.low
        if self.products is not None and bool(torch.isfinite(self.products).all()):
            out["eigs"] = torch.linalg.eigvalsh(self.products.double() / self.count).clamp(min=0).sqrt()
        return out

    def lines(self) -> Iterator[str]:
        """Yield one line for each statistic, with percentiles over the axis."""
        for name, values in sorted(self.values().items()):
            values = values.double()
            at = torch.tensor(_PERCENTILES, dtype=torch.float64) / 100
            percentiles = " ".join(f"{v:.3g}" for v in torch.quantile(values, at).tolist())
            rms = values.square().mean().sqrt()
            yield f"{name} percentiles: [{percentiles}], mean={values.mean():.3g}, rms={rms:.3g}"


class Diagnostics:
    """Collects statistics of a model by hooks on all its modules.

    Axes of one element are left out, and so are axes whose length changes from batch to batch
    (utterances and time).

    Args:
      model: its modules have hooks until :meth:`remove`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._stats: Dict[Tuple[str, int], AxisStats] = {}
        self._shapes: Dict[str, List[int]] = {}
        self._changing: Set[Tuple[str, int]] = set()
        self._handles = [
            m.register_forward_hook(self._hook(name or "model")) for name, m in model.named_modules()
        ]

    def add(self, name: str, value: Tensor) -> None:
        """Add a tensor to the statistics of ``name``."""
        shape = list(value.shape)
        known = self._shapes.setdefault(name, shape)
        if len(known) != len(shape):
            return
        for axis, size in enumerate(shape):
            key = (name, axis)
            if size != known[axis]:
                self._changing.add(key)
                self._stats.pop(key, None)
            if size > 1 and key not in self._changing:
                rows = value.detach().movedim(axis, -1).reshape(-1, size)
                self._stats.setdefault(key, AxisStats(size)).add(rows)

    def after_backward(self) -> None:
        """Add the parameters' gradients; call this before they are cleared."""
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                self.add(f"{name}.param_grad", p.grad)

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def text(self) -> str:
        """Return all statistics, sorted by name, with the parameters' present values."""
        for name, p in self.model.named_parameters():
            self.add(f"{name}.param_value", p)
        out = []
        for (name, axis), stats in sorted(self._stats.items()):
            out += [
                f"{name}, axis {axis} of {len(self._shapes[name])}, size {stats.size}, {line}"
                for line in stats.lines()
            ]
        return "\n".join(out) + "\n"

    def _hook(self, name: str) -> ModuleHook:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            values = list(tensors_in(output))
            for i, value in enumerate(values):
                place = name if len(values) == 1 else f"{name}[{i}]"
                self.add(f"{place}.output", value)
                if value.requires_grad:
                    value.register_hook(self._grad_hook(f"{place}.grad"))

        return hook

    def _grad_hook(self, name: str) -> Callable[[Optional[Tensor]], None]:
        def hook(grad: Optional[Tensor]) -> None:
            if grad is not None:  # None where only other outputs of a function are used
                self.add(name, grad)

        return hook


def diagnose(model: nn.Module, losses: Iterable[Tensor], path: Path) -> None:
    """Print statistics over the first few batches and write them to a file.

    The model's weights are not changed.

    Args:
      model: the model in training mode.
      losses: an iterator that computes the loss of one batch after the other.
      path: the file.
    """
    diagnostics = Diagnostics(model)
    seen = 0
    for loss in losses:
        loss.backward()
        diagnostics.after_backward()
        model.zero_grad(set_to_none=True)
        seen += 1
        if seen == NUM_BATCHES:
            break
    diagnostics.remove()
    text = diagnostics.text()
    write_text_atomic(path, text)
    print(text, end="")
    logging.info(
        "Statistics of %d batches are in %s; without --print-diagnostics the same command trains", seen, path
    )

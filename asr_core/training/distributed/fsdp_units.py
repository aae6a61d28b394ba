"""The units in which ``--shard fsdp`` divides a model."""

import inspect
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from asr_core.training.batch_loss import BatchLoss
from asr_core.utils.errors import UserError


class Loss(nn.Module):
    """A module whose forward pass is that of a loss.

    Args:
      model: what the loss uses.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], BatchLoss]) -> BatchLoss:
        """Return what ``compute`` returns."""
        return compute()


class Unit:
    """A module whose parameters are gathered together.

    Args:
      module: the module.
      inner: modules in it that are units of their own.
    """

    def __init__(self, module: nn.Module, inner: Sequence[nn.Module]) -> None:
        self.module: Any = module  # torch gives it further methods
        self.idle = False
        self._handles: List[RemovableHandle] = []
        foreign = {m for unit in inner for m in unit.modules()}
        self._slots: List[Tuple[nn.Module, str]] = [
            (m, name)
            for m in module.modules()
            if m not in foreign
            for name, p in m.named_parameters(recurse=False)
            if p.requires_grad
        ]
        module.register_forward_hook(self._expect)

    def _expect(self, module: nn.Module, args: object, output: object) -> None:
        """Give gradients of zeros to all parameters when the backward pass reaches the output."""
        if not torch.is_grad_enabled():
            return
        params = [getattr(m, name) for m, name in self._slots]
        first = next((t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad), None)
        if first is not None:
            first.register_hook(lambda _: self._fill(params))
        if self.idle:
            self._handles += [p.register_hook(torch.zeros_like) for p in params]

    def _fill(self, params: Sequence[Tensor]) -> None:
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)

    def rest(self, idle: bool) -> None:
        """Count the batches to come as none, or as what they are."""
        self.idle = idle
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def divide(
    modules: Sequence[nn.Module], root: nn.Module, mesh: "dist.DeviceMesh", dtype: Optional[torch.dtype]
) -> List[Unit]:
    """Divide the parameters of modules, and then those that are in none of them.

    Raises:
      UserError: this torch cannot do it.
    """
    from torch.distributed import fsdp

    fully_shard = getattr(fsdp, "fully_shard", None)
    if fully_shard is None or "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise UserError(
            f"--shard fsdp: torch {torch.__version__} cannot divide models in this way: install a newer one, "
            "or leave it out"
        )
    options: Dict[str, Any] = dict(
        mesh=mesh,
        mp_policy=fsdp.MixedPrecisionPolicy(reduce_dtype=dtype),
        ignored_params={p for p in root.parameters() if p.dim() == 0},
    )
    units = [Unit(m, []) for m in modules if next(m.parameters(), None) is not None]
    units.append(Unit(root, [unit.module for unit in units]))
    for unit in units:
        fully_shard(unit.module, **options)
    return units

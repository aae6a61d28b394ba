"""Tensors that lie whole on each process, or of which each process keeps a part.

A part is a DTensor, cut along its first axis, in the state dicts of models and averages; optimizers
see the plain tensor inside of it. What is here works on both kinds, and costs nothing for whole
tensors. The division itself is in :mod:`~asr_core.training.distributed.fsdp`.
"""

import contextlib
from typing import TYPE_CHECKING, Any, ContextManager, Dict, Mapping, Sequence, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")


def is_part(t: Tensor) -> bool:
    """Return whether a tensor is divided among the processes."""
    return hasattr(t, "device_mesh")


def local(t: Tensor) -> Tensor:
    """Return what this process has of a tensor, in the same memory."""
    return cast("DTensor", t).to_local() if is_part(t) else t


def own_rows(whole: Tensor, of: Tensor, axis: int = 0) -> Tensor:
    """Return of a whole tensor what this process keeps.

    Args:
      whole: the tensor, or what this process has of it already.
      of: a tensor that is divided likewise along its axis 0, or not at all.
      axis: the axis of ``whole`` that is the first one of ``of``.
    """
    if is_part(whole):
        return local(whole)
    if not is_part(of):
        return whole
    divided = cast("DTensor", of)
    rows, mesh = of.shape[0], divided.device_mesh
    longest = -(-rows // mesh.size())
    begin = min(mesh.get_local_rank() * longest, rows)
    return whole.narrow(axis, begin, min(longest, rows - begin))


def as_part(values: Tensor, of: Tensor, axis: int = 0) -> Tensor:
    """Mark what this process has of a tensor as the part that it is.

    Args:
      values: the part.
      of: a tensor that is divided likewise along its axis 0, or not at all.
      axis: the axis of ``values`` that is the first one of ``of``.
    """
    if not is_part(of):
        return values
    from torch.distributed.tensor import DTensor, Shard

    shape = torch.Size((*values.shape[:axis], *of.shape))
    return DTensor.from_local(
        values,
        cast("DTensor", of).device_mesh,
        [Shard(axis)],
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )


def gathered(tree: T, keep: bool) -> T:
    """Return nested dicts and lists with whole tensors in place of parts; all processes call this.

    Args:
      tree: the dicts and lists.
      keep: whether this process wants the whole tensors, which are on the CPU then.
    """
    if isinstance(tree, Tensor):
        if not is_part(tree):
            return tree
        whole = cast("DTensor", tree).full_tensor()
        return cast(T, whole.cpu() if keep else whole.new_zeros(()))
    if isinstance(tree, Mapping):
        return cast(T, {name: gathered(value, keep) for name, value in tree.items()})
    if isinstance(tree, list):
        return cast(T, [gathered(value, keep) for value in tree])
    return tree


def load_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of whole tensors or of parts into a model, which may be divided.

    Raises:
      RuntimeError: names or shapes are others.
    """
    own, fitting = model.state_dict(), dict(state)
    for name, value in own.items():
        if name in state and is_part(value) and state[name].shape == value.shape:
            mine = own_rows(state[name], value).to(local(value).device, value.dtype)
            fitting[name] = as_part(mine, value)
    model.load_state_dict(fitting)


class Shards:
    """What a process keeps of a model's weights, averages and optimizer: here all of it.

    Attributes:
      divided: whether it is less than all.
    """

    divided = False

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Let a new optimizer of the model's parameters update what this process keeps of them."""

    def whole(self) -> ContextManager[object]:
        """Return a context in which the whole model is on each process, for use without gradients.

        All processes enter and leave it.
        """
        return contextlib.nullcontext()

    def shape(self, p: Tensor) -> torch.Size:
        """Return the shape of the whole parameter of which the optimizer updates ``p``."""
        return p.shape

    def sum(self, values: Tensor, params: Sequence[Tensor]) -> Tensor:
        """Add up numbers that each process has computed from its parts of parameters.

        Args:
          values: (..., N), of the N parameters; changed.
          params: the parameters, as the optimizer has them.

        Returns:
          ``values``.
        """
        return values

    def state_of(self, optimizer: torch.optim.Optimizer) -> Dict[str, Any]:
        """Return the optimizer's state dict, with parts marked as such."""
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Load a state dict of whole tensors or of parts.

        Raises:
          ValueError, KeyError: it is of other parameters.
        """
        optimizer.load_state_dict(dict(state))

    def grad_scaler(self, device: torch.device, enabled: bool) -> torch.amp.GradScaler:
        """Build the loss scaler of float16.

        torch's initial scale of 65536 would overflow for the first steps of a summed loss; the
        stepper lets a small one grow quickly.
        """
        return torch.amp.GradScaler(device.type, enabled=enabled, init_scale=1.0)

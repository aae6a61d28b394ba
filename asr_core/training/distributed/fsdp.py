"""Training in which each process keeps a part of the weights, of their gradients, averages and of
the optimizer's state (``--shard fsdp``), for models that do not fit on one device otherwise.

The division is torch's ``fully_shard`` (FSDP2; Zhao et al. 2023, https://arxiv.org/abs/2304.11277):
each layer is one unit, and what is in no layer another. A unit's weights are gathered when its
forward or backward pass begins and dropped after it, and gradients are summed and divided when its
backward pass ends. Gradients mean what they do without a division: sums over all processes.

All processes must gather and sum the same units in the same order, whatever their batches:

- a process without a batch goes through the motions with another batch, its gradients being zeros;
- parameters that a batch does not touch have gradients of zeros, or sums would be of different
  parameters;
- parameters without an axis cannot be divided: each process has them, and their gradients are
  summed at the end of a step;
- validation, searches and the search for bad cuts, where processes have batches of different number
  and make steps of their own, take place with the whole model on each process, without gradients.

Losses reach into the model in many places, so the unit of what is in no layer is entered by a
module that wraps the loss rather than by the model's own forward pass.
"""

import contextlib
import logging
import warnings
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from asr_core.nn.layers import layers_of
from asr_core.training.batch_loss import BatchLoss
from asr_core.training.distributed.fsdp_units import Loss, divide
from asr_core.training.distributed.gradients import Gradients
from asr_core.training.distributed.world import Batch, PeerLost, ProcessGroup, SingleProcess
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.training.optim.shards import Shards, as_part, is_part, local, own_rows
from asr_core.utils.errors import UserError

# States of optimizers with one value per weight; ScaledAdam's have one more axis before its own.
_PER_WEIGHT = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "delta")


def shard_model(
    model: nn.Module, world: SingleProcess, device: torch.device, mode: str, compression: str
) -> Shards:
    """Divide a model's parameters among the processes, in place, as ``--shard`` says.

    Names in its state dict stay; parameters are others.

    Args:
      model: the model, with equal weights on all processes.
      world: the processes that train together.
      device: where the model is.
      mode: ``--shard``.
      compression: ``--ddp-compression``, the type in which gradients travel.

    Raises:
      UserError: the options contradict each other, or this torch cannot do it.
    """
    if mode == "none":
        return Shards()
    if not isinstance(world, ProcessGroup):
        raise UserError(f"--shard {mode}: a single process has nobody to share with: leave it out")
    if compression == "fp16":
        raise UserError(
            f"--ddp-compression fp16: the sums of --shard {mode} would overflow in float16; "
            "give --ddp-compression bf16, or leave it out"
        )
    return FsdpShards(model, world, device, torch.bfloat16 if compression == "bf16" else None)


class FsdpShards(Shards):
    """The parts of a model that this process keeps.

    Args:
      model: the model; its parameters become parts.
      world: the processes.
      device: where the model is.
      dtype: type in which gradients travel and are summed; None: their own.
    """

    divided = True

    def __init__(
        self, model: nn.Module, world: ProcessGroup, device: torch.device, dtype: Optional[torch.dtype]
    ) -> None:
        # Nothing here changes a layer's output in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        self.group = world.gradient_group
        self.size = world.size
        self.root = cast(Any, Loss(model))  # torch gives it further methods
        layers = list(layers_of(model).values())
        front_end = getattr(model, "encoder_embed", None)
        units = [*layers, front_end] if isinstance(front_end, nn.Module) else layers
        self.units = divide(units, self.root, self._mesh(device), dtype)
        with torch.no_grad():
            self.root(lambda: torch.zeros(()))  # torch must meet the outermost module first
        self.root.reshard()
        self._divided = [p for p in model.parameters() if is_part(p)]
        self._common = [p for p in model.parameters() if not is_part(p)]
        with torch.no_grad():
            self._local = [local(p) for p in self._divided]
        self._whole: Dict[Tensor, nn.Parameter] = dict(zip(self._local, self._divided))
        self._columns: Dict[Tuple[int, ...], Tensor] = {}
        logging.info(
            "The model is divided among %d processes: %.1f of its %.1f million parameters are here",
            self.size,
            sum(p.numel() for p in (*self._local, *self._common)) / 1e6,
            sum(p.numel() for p in model.parameters()) / 1e6,
        )

    def _mesh(self, device: torch.device) -> "dist.DeviceMesh":
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh.from_group(self.group, device.type)

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        part_of = {p: mine for mine, p in self._whole.items()}
        for group in optimizer.param_groups:
            group["params"] = [part_of.get(p, p) for p in group["params"]]
        if isinstance(optimizer, ScaledAdam):
            optimizer.shards = self

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        modules = [unit.module for unit in self.units]
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
            self._forget_order()
        finally:
            for module in modules:
                module.reshard()
                module.set_reshard_after_forward(module is not self.root, recurse=False)

    @torch.enable_grad()
    def _forget_order(self) -> None:
        """Let torch forget in which order units have been used; they are all here, so that none is
        gathered for it.

        A backward pass gathers each unit ahead in that order, which it then clears. What passes
        without gradients leave in it would be gathered in the next step, only by the processes that
        had batches to evaluate: the others would wait for ever.
        """
        self.root(lambda: torch.zeros((), requires_grad=True)).backward()
        for p in (*self._divided, *self._common):
            p.grad = None

    def shape(self, p: Tensor) -> torch.Size:
        return self._whole[p].shape if p in self._whole else p.shape

    def sum(self, values: Tensor, params: Sequence[Tensor]) -> Tensor:
        index = self._columns_of(params).to(values.device)
        if len(index):
            sums = values.index_select(-1, index)
            dist.all_reduce(sums, group=self.group)
            values.index_copy_(-1, index, sums)
        return values

    def _columns_of(self, params: Sequence[Tensor]) -> Tensor:
        """Return which of the parameters are parts, on their device, copied there once."""
        key = tuple(map(id, params))
        if key not in self._columns:
            columns = [i for i, p in enumerate(params) if p in self._whole]
            self._columns[key] = torch.tensor(columns, dtype=torch.int64, device=params[0].device)
        return self._columns[key]

    @torch.no_grad()
    def give_gradients(self) -> None:
        """Let the optimizer have the gradients of the step, which are sums over all processes."""
        for p, mine in zip(self._divided, self._local):
            mine.grad, p.grad = None if p.grad is None else local(p.grad), None
        found = [p.grad for p in self._local if p.grad is not None]
        if found:
            torch._foreach_mul_(found, self.size)  # they are means
        grads = [p.grad for p in self._common if p.grad is not None]
        if grads:
            flat = torch.cat([g.reshape(-1) for g in grads])
            dist.all_reduce(flat, group=self.group)
            torch._foreach_copy_(grads, [v.view_as(g) for v, g in zip(flat.split(1), grads)])

    # -- the optimizer's state -------------------------------------------------------------------

    def state_of(self, optimizer: torch.optim.Optimizer) -> Dict[str, Any]:
        content = optimizer.state_dict()
        return self._change(content, _params_by_index(optimizer, content), as_part)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        optimizer.load_state_dict(self._change(state, _params_by_index(optimizer, state), _copy_of_own))

    def _change(
        self,
        content: Mapping[str, Any],
        params: Mapping[int, Tensor],
        change: Callable[[Tensor, Tensor, int], Tensor],
    ) -> Dict[str, Any]:
        """Return a state dict, with ``change`` applied to all that has a value per weight."""
        states: Dict[int, Dict[str, Any]] = {}
        for index, entries in content["state"].items():
            p = self._whole.get(params[index]) if index in params else None
            states[index] = dict(entries)
            for name in _PER_WEIGHT if p is not None else ():
                if name in entries and p is not None:
                    states[index][name] = change(entries[name], p, entries[name].dim() - p.dim())
        return {**content, "state": states}

    def grad_scaler(self, device: torch.device, enabled: bool) -> torch.amp.GradScaler:
        return _CommonScaler(self.group, device.type, enabled=enabled, init_scale=1.0)


def _copy_of_own(whole: Tensor, of: Tensor, axis: int) -> Tensor:
    """Return :func:`own_rows` in memory of its own, without gaps, as kernels need it."""
    return own_rows(whole, of, axis).clone(memory_format=torch.contiguous_format)


def _params_by_index(optimizer: torch.optim.Optimizer, content: Mapping[str, Any]) -> Dict[int, Tensor]:
    """Return an optimizer's parameters by their numbers in a state dict, by name if it has any."""
    named: Dict[str, Tensor] = {}
    in_order: List[Tensor] = []
    for group in optimizer.param_groups:
        named.update(zip(group.get("names", ()), group["params"]))
        in_order += group["params"]
    found: Dict[int, Tensor] = {}
    for group in content["param_groups"]:
        if "names" in group:
            found.update((i, named[n]) for n, i in zip(group["names"], group["params"]) if n in named)
        else:
            found.update(zip(group["params"], in_order[len(found) :]))
    return found


class _CommonScaler(torch.amp.GradScaler):
    """A loss scaler that looks for overflows in the gradients of all processes.

    Args:
      group: the processes.
      device: type of the device.
      options: of torch's scaler.
    """

    def __init__(self, group: "dist.ProcessGroup", device: str, **options: Any) -> None:
        super().__init__(device, **options)
        self._group = group

    def _unscale_grads_(self, *args: Any, **kwargs: Any) -> Dict[torch.device, Tensor]:
        found = super()._unscale_grads_(*args, **kwargs)
        for value in found.values():
            dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self._group)
        return found


# -- the gradients of a step -----------------------------------------------------------------


class DividedGradients(Gradients):
    """The gradients of one step, summed over several processes, each of which has a part.

    Args:
      shards: the division of the model.
      scaler: loss scaler of float16; may be disabled.
      world: the processes.
    """

    def __init__(self, shards: FsdpShards, scaler: torch.amp.GradScaler, world: SingleProcess) -> None:
        super().__init__(scaler)
        self.shards = shards
        self.world = world
        self._spare: Optional[Batch] = None  # for steps without a batch
        self._all_have_one = False
        self._idle_loss: Optional[Tensor] = None
        self._idle_mode = contextlib.ExitStack()  # to the end of the backward pass

    def loss_of(self, batch: Optional[Batch], compute: Callable[[Batch], BatchLoss]) -> Optional[BatchLoss]:
        if not self._all_have_one:
            self._find_spare(batch)
        self._spare = used = batch or self._spare
        assert used is not None  # some process has one
        idle = batch is None
        for unit in self.shards.units:
            unit.rest(idle)
        if idle:
            self._idle_mode.enter_context(_evaluating(self.shards.root))
        with _peer_errors():
            out: BatchLoss = self.shards.root(lambda: compute(used))
        self._idle_loss = out.loss if idle else None
        return None if idle else out

    def add(self, loss: Optional[Tensor], last: bool) -> None:
        total, self._idle_loss = self._idle_loss if loss is None else loss, None
        assert total is not None
        with _peer_errors():
            with self._idle_mode:
                self.scaler.scale(total).backward()
            if last:
                self.shards.give_gradients()

    def _find_spare(self, batch: Optional[Batch]) -> None:
        """Let processes that have not had a batch yet have one of another's."""
        rows = self.world.exchange([batch is not None or self._spare is not None])
        have = [bool(row[0]) for row in rows]
        self._all_have_one = all(have)
        if not self._all_have_one:
            giver = have.index(True)
            mine = (batch or self._spare) if self.world.rank == giver else None
            given = self.world.gather(tree_map_only(Tensor, lambda t: t.cpu(), mine))[giver]
            self._spare = self._spare or given


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Return a context in which no module changes its state or draws random numbers."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _peer_errors() -> Iterator[None]:
    """Convert errors of ``torch.distributed`` among those of a model to PeerLost."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as e:
        if isinstance(e, dist.DistError) or "gloo" in str(e).lower():
            raise PeerLost(" ".join(str(e).split())[:200]) from e
        raise

"""Processes that train together, one on each device, all at the same step.

Gradients are *summed* over the processes, as losses are over the utterances of a batch: N processes with a batch each give the
gradient of one process with all their utterances, and nothing else in the training knows how many there are, but for the counter of
reference batches (``--ref-duration``). (Averaging would give 1/N of it. ScaledAdam would not notice; other optimizers would.)

The reduction is our own, after the backward pass, rather than DistributedDataParallel's hooks during it: the step that a rank has no
batch for, or cannot use, needs no special care then, parameters without a gradient neither, and model and checkpoints keep their
names. What is lost is the overlap with the backward pass: the time to sum the gradients once, some milliseconds inside a machine.
"""

import contextlib
import datetime
import logging
import sys
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.batch_norm import MaskedBatchNorm1d, synchronised
from asr_core.training.distributed.launch import EXIT_PEER_LOST, EXIT_REPORTED, RankInfo
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.options import TrainOptions
from asr_core.utils.errors import UserError

_BUCKET = 32 << 20  # bytes of gradients that travel together

Batch = Dict[str, Any]


class PeerLost(RuntimeError):
    """Another process does not answer any more."""


class SingleProcess:
    """The processes that train together: here, this one alone.

    Attributes:
      rank, size: this process among them.
      local_rank: this process among those of its machine, which is the number of its GPU.
    """

    def __init__(self, seat: RankInfo = RankInfo()) -> None:
        self.rank = seat.rank
        self.size = seat.size
        self.local_rank = seat.local_rank

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def exchange(self, values: Sequence[float]) -> List[List[float]]:
        """The ``values`` of all ranks, equally many, in the order of the ranks."""
        return [[float(v) for v in values]]

    def gather(self, value: Any) -> List[Any]:
        """The picklable ``value`` of each rank, in the order of the ranks."""
        return [value]

    def from_main(self, value: Any) -> Any:
        """Rank 0's picklable ``value``."""
        return value

    def share_weights(self, model: nn.Module) -> None:
        """Give all ranks the parameters and buffers of rank 0."""

    def shared_statistics(self, model: nn.Module, has_batch: bool) -> ContextManager[None]:
        """Within it the batch norms of ``model`` take their statistics over all ranks.

        Where one of them has no batch, each rank goes by its own, and afterwards all have the running ones of the first with a batch.
        All ranks enter it, those without a batch, too.
        """
        return contextlib.nullcontext()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks; a parameter that has none anywhere stays without."""

    def claims_report(self) -> bool:
        """True for the first rank that asks, so that a mistake of all is told once."""
        return True

    def close(self) -> None:
        """Wait for the others and part."""

    def agree_to_stop(self, stop: StopRequest) -> bool:
        """Whether any rank was told to stop; they all learn of it here."""
        stop.agree(max(int(row[0]) for row in self.exchange([stop.signum])))
        return bool(stop)

    def in_step(
        self, batches: Iterator[Batch], first: int, stop: StopRequest
    ) -> Iterator[Tuple[Optional[Batch], int]]:
        """Hand out this rank's batches so that all ranks are always at the same place of the epoch.

        Step s is made of the batches at positions ``first + s * size + rank``. Yields (batch, position after the step), with None
        where this rank has nothing for it, because nothing of the batch could be read or its part of the epoch is over; steps
        without any batch are left out. Ends on all ranks together: after the last batch, or once any of them was told to stop.
        """
        position = first
        held = next(batches, None)
        while True:
            mine = held is not None and held.get("batch_idx", position) <= position + self.rank
            rows = self.exchange([mine, held is None, stop.signum])
            stop.agree(max(int(row[2]) for row in rows))
            if stop or all(row[1] for row in rows):
                return
            position += self.size
            if any(row[0] for row in rows):
                yield (held if mine else None), position
            if mine:
                held = next(batches, None)


class ProcessGroup(SingleProcess):
    """Several processes. Small messages go from CPU to CPU by gloo; gradients by NCCL where they are on GPUs.

    Every method is called by all ranks in the same order.

    Raises:
      PeerLost: by any method, if another process has ended or does not answer within ``timeout`` seconds.
    """

    def __init__(self, seat: RankInfo, timeout: float, cuda: bool) -> None:
        super().__init__(seat)
        import torch.distributed as dist

        self._dist = dist
        self.timeout = datetime.timedelta(seconds=timeout)
        place = {"init_method": seat.address, "rank": seat.rank, "world_size": seat.size}
        with _lost_peers():
            dist.init_process_group("gloo", timeout=self.timeout, **place)
            self._nccl = dist.new_group(backend="nccl", timeout=self.timeout) if cuda else None
        self._store = dist.distributed_c10d._get_default_store()

    def exchange(self, values: Sequence[float]) -> List[List[float]]:
        rows = torch.empty(self.size, len(values), dtype=torch.float64)
        with _lost_peers():
            self._dist.all_gather(
                list(rows.unbind()), torch.tensor([float(v) for v in values], dtype=torch.float64)
            )
        return rows.tolist()

    def gather(self, value: Any) -> List[Any]:
        values: List[Any] = [None] * self.size
        with _lost_peers():
            self._dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        values = [value]
        with _lost_peers():
            self._dist.broadcast_object_list(values, src=0)
        return values[0]

    @torch.no_grad()
    def share_weights(self, model: nn.Module) -> None:
        with _lost_peers():
            for tensor in model.state_dict().values():
                whole = tensor.contiguous()
                self._dist.broadcast(whole, src=0, group=self._nccl)
                if whole is not tensor:
                    tensor.copy_(whole)

    def shared_statistics(self, model: nn.Module, has_batch: bool) -> ContextManager[None]:
        norms = [m for m in model.modules() if isinstance(m, MaskedBatchNorm1d)]
        if not norms:
            return contextlib.nullcontext()
        with_batch = [bool(row[0]) for row in self.exchange([has_batch])]
        return (
            synchronised(self._nccl) if all(with_batch) else self._buffers_of(norms, with_batch.index(True))
        )

    @contextlib.contextmanager
    def _buffers_of(self, modules: Sequence[nn.Module], rank: int) -> Iterator[None]:
        """After it all ranks have the buffers of ``rank``."""
        yield
        with _lost_peers(), torch.no_grad():
            for module in modules:
                for buffer in module.buffers():
                    self._dist.broadcast(buffer, src=rank, group=self._nccl)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        params = [p for p in parameters if p.requires_grad]
        counts = torch.tensor([0 if p.grad is None else 1 for p in params], dtype=torch.int32)
        with _lost_peers():
            self._dist.all_reduce(counts)
            params = [p for p, n in zip(params, counts.tolist()) if n]
            for p in params:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            pending: List[Tuple[List[Tensor], Tensor, Any]] = []
            for grads in _buckets([p.grad for p in params if p.grad is not None]):
                flat = torch.cat([g.reshape(-1) for g in grads])
                pending.append((grads, flat, self._dist.all_reduce(flat, group=self._nccl, async_op=True)))
                if len(pending) > 1:
                    _unflatten(*pending.pop(0))
            for each in pending:
                _unflatten(*each)

    def claims_report(self) -> bool:
        try:
            return self._store.add("told", 1) == 1
        except RuntimeError:  # the store went with rank 0, which would not go without a word
            return False

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # nothing is lost if some have gone ahead
            self._dist.monitored_barrier(timeout=self.timeout)
            self._dist.destroy_process_group()


def run_in_group(seat: RankInfo, opts: TrainOptions, body: Callable[[SingleProcess], int]) -> int:
    """Run ``body`` in the circle of the processes that train together; return its exit status.

    A :class:`UserError` that several ranks meet is told by one of them.
    """
    if seat.size == 1:
        return body(SingleProcess(seat))
    world: Optional[SingleProcess] = None
    try:
        world = join(seat, opts.dist_timeout, opts.device != "cpu" and torch.cuda.is_available())
        status = body(world)
        world.close()
        return status
    except UserError as e:
        if world is None or world.claims_report():
            print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        return EXIT_REPORTED if seat.watched else 1
    except PeerLost as e:
        logging.info("no answer from the other processes: %s", e)
        if not seat.watched and (world is None or world.claims_report()):
            print(f"error: rank {seat.rank} has no answer from the others ({e})", file=sys.stderr)
        return EXIT_PEER_LOST if seat.watched else 1


def join(seat: RankInfo, timeout: float, cuda: bool) -> SingleProcess:
    """Meet the other processes; returns when all are there.

    Args:
      seat: the place of this process.
      timeout: seconds after which a process that does not answer counts as lost.
      cuda: whether gradients are on GPUs.

    Raises:
      PeerLost: not all came.
      UserError: there are more processes than GPUs on this machine.
    """
    if cuda and seat.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"{seat.local_size} processes on this machine, which has {torch.cuda.device_count()} GPUs: start at most one for each"
        )
    if cuda:
        torch.cuda.set_device(seat.local_rank)
    return ProcessGroup(seat, timeout, cuda)


@contextlib.contextmanager
def _lost_peers() -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as e:
        raise PeerLost(" ".join(str(e).split())[:200]) from e


def _buckets(grads: List[Tensor]) -> Iterator[List[Tensor]]:
    """Gradients in groups of one type and about ``_BUCKET`` bytes."""
    bucket: List[Tensor] = []
    size = 0
    for grad in sorted(grads, key=lambda g: str(g.dtype)):  # a stable sort: the same order on all ranks
        if bucket and (size >= _BUCKET or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += grad.numel() * grad.element_size()
    if bucket:
        yield bucket


def _unflatten(grads: List[Tensor], flat: Tensor, work: Any) -> None:
    work.wait()
    parts = flat.split([g.numel() for g in grads])
    torch._foreach_copy_(grads, [part.view(g.shape) for part, g in zip(parts, grads)])

"""Processes that train together, one per device, all at the same step.

They exchange small messages and decide together. The sum of their gradients is in
:mod:`~asr_core.training.distributed.gradients`.
"""

import contextlib
import datetime
import logging
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    ContextManager,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

import torch
import torch.distributed as dist
from torch import nn

from asr_core.nn.batch_norm import MaskedBatchNorm1d, synchronised
from asr_core.training.distributed.agreement import Disagreement, agree, facts_of, open_store
from asr_core.training.distributed.launch import EXIT_PEER_LOST, EXIT_REPORTED, RankInfo
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.options import ProcessOptions
from asr_core.utils.console import report_error
from asr_core.utils.errors import UserError

Batch = Mapping[str, Any]
T = TypeVar("T")


class PeerLost(RuntimeError):
    """Another process no longer answers."""


class SingleProcess:
    """The group of processes that train together, here with a single member.

    Args:
      rank_info: the place of this process.

    Attributes:
      rank: number of this process.
      size: number of processes.
      local_rank: number of this process on its machine, which is also the number of its GPU.
    """

    def __init__(self, rank_info: RankInfo = RankInfo()) -> None:
        self.rank = rank_info.rank
        self.size = rank_info.size
        self.local_rank = rank_info.local_rank

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def exchange(self, values: Sequence[float]) -> List[List[float]]:
        """Return the ``values`` of all ranks, by rank; each rank gives equally many."""
        return [[float(v) for v in values]]

    def gather(self, value: T) -> List[T]:
        """Return the picklable ``value`` of each rank, by rank."""
        return [value]

    def from_main(self, value: T) -> T:
        """Return rank 0's picklable ``value``."""
        return value

    def share_weights(self, model: nn.Module) -> None:
        """Copy the parameters and buffers of rank 0 to all ranks."""

    def shared_statistics(self, model: nn.Module, has_batch: bool) -> ContextManager[None]:
        """Return a context in which the batch norms of ``model`` compute statistics over all ranks.

        If a rank has no batch, each rank uses its own statistics, and afterwards all have the
        running statistics of the first rank with a batch. All ranks enter the context, those
        without a batch too.
        """
        return contextlib.nullcontext()

    def claims_report(self) -> bool:
        """Return True to the first rank that asks, so that a common error is printed once."""
        return True

    def close(self) -> None:
        """Wait for the other ranks and leave the group."""

    def agree_to_stop(self, stop: StopRequest) -> bool:
        """Return whether any rank received a signal to stop; ``stop`` is set on all of them."""
        stop.agree(max(int(row[0]) for row in self.exchange([stop.signum])))
        return bool(stop)

    def in_lockstep(
        self, batches: Iterator[Batch], first: int, stop: StopRequest
    ) -> Iterator[Tuple[Optional[Batch], int]]:
        """Yield this rank's batches so that all ranks are always at the same place of the epoch.

        Step s consists of the batches at positions ``first + s * size + rank``. Iteration ends on
        all ranks together: after the last batch, or once any of them has received a signal to stop.

        Args:
          batches: this rank's batches of the epoch; ``batch_idx`` is the position of each.
          first: position of the first step.
          stop: the request to stop, which is exchanged at each step.

        Yields:
          The batch and the position after the step. The batch is None where this rank has none for
          the step, because nothing of it could be read or its part of the epoch is over; steps for
          which no rank has a batch are left out.
        """
        position = first
        upcoming = next(batches, None)
        while True:
            # A batch from further on waits for its step: those before it could not be read.
            is_due = upcoming is not None and upcoming.get("batch_idx", position) <= position + self.rank
            rows = self.exchange([is_due, upcoming is None, stop.signum])
            stop.agree(max(int(row[2]) for row in rows))
            if stop or all(row[1] for row in rows):
                return
            position += self.size
            if any(row[0] for row in rows):
                yield (upcoming if is_due else None), position
            if is_due:
                upcoming = next(batches, None)


class ProcessGroup(SingleProcess):
    """A group of several processes.

    Small messages travel from CPU to CPU with gloo, gradients with NCCL if they are on GPUs. All
    ranks call every method in the same order.

    Args:
      rank_info: the place of this process.
      timeout: seconds after which a process that does not answer counts as lost.
      cuda: whether gradients are on GPUs.
      params: all options, which the processes must agree about.

    Raises:
      UserError: the processes differ in options or versions.
      PeerLost: by any method, if another process has ended or does not answer.
    """

    def __init__(self, rank_info: RankInfo, timeout: float, cuda: bool, params: Mapping[str, object]) -> None:
        super().__init__(rank_info)
        self.timeout = datetime.timedelta(seconds=timeout)
        with peer_errors():
            self._store = open_store(rank_info, timeout)
            agree(self._store, rank_info, facts_of(params, rank_info, cuda), timeout)
            dist.init_process_group(
                "gloo",
                timeout=self.timeout,
                store=dist.PrefixStore("group", self._store),
                rank=rank_info.rank,
                world_size=rank_info.size,
            )
            backend = "nccl" if cuda else "gloo"
            self.gradient_group = dist.new_group(backend=backend, timeout=self.timeout)
            # Apart from gradients, which travel during the backward pass, too: among them, the
            # place of statistics may differ from rank to rank.
            self._statistics = dist.new_group(backend=backend, timeout=self.timeout)

    def exchange(self, values: Sequence[float]) -> List[List[float]]:
        mine = torch.tensor([float(v) for v in values], dtype=torch.float64)
        rows = torch.empty(self.size, len(values), dtype=torch.float64)
        with peer_errors():
            dist.all_gather(list(rows.unbind()), mine)
        return [[float(v) for v in row] for row in rows.tolist()]

    def gather(self, value: T) -> List[T]:
        values = [value] * self.size
        with peer_errors():
            dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        values = [value]
        with peer_errors():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    @torch.no_grad()
    def share_weights(self, model: nn.Module) -> None:
        with peer_errors():
            for tensor in model.state_dict().values():
                contiguous = tensor.contiguous()
                dist.broadcast(contiguous, src=0, group=self.gradient_group)
                if contiguous is not tensor:
                    tensor.copy_(contiguous)

    def shared_statistics(self, model: nn.Module, has_batch: bool) -> ContextManager[None]:
        norms = [m for m in model.modules() if isinstance(m, MaskedBatchNorm1d)]
        if not norms:
            return contextlib.nullcontext()
        with_batch = [bool(row[0]) for row in self.exchange([has_batch])]
        if all(with_batch):
            return self._synchronised()
        return self._buffers_from(with_batch.index(True), norms)

    @contextlib.contextmanager
    def _synchronised(self) -> Iterator[None]:
        """Return a context in which batch norms have the statistics of all ranks."""
        with peer_errors(ConnectionError), synchronised(self._statistics):
            yield

    @contextlib.contextmanager
    def _buffers_from(self, rank: int, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Return a context after which all ranks have the buffers of ``rank``."""
        yield
        with peer_errors(), torch.no_grad():
            for module in modules:
                for buffer in module.buffers():
                    dist.broadcast(buffer, src=rank, group=self.gradient_group)

    def claims_report(self) -> bool:
        try:
            return int(self._store.add("reported", 1)) == 1
        except RuntimeError:  # the store ended with rank 0, which reports before it exits
            return False

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # ranks that left earlier have done nothing wrong
            dist.monitored_barrier(timeout=self.timeout)
            dist.destroy_process_group()


def run_in_group(
    rank_info: RankInfo,
    opts: ProcessOptions,
    body: Callable[[SingleProcess], int],
    params: Mapping[str, object] = MappingProxyType({}),
) -> int:
    """Run ``body`` as one of the processes that train together.

    A :class:`UserError` that several ranks meet is printed by one of them.

    Args:
      rank_info: the place of this process.
      opts: device and timeout.
      body: called with the group; returns an exit status.
      params: all options, which the processes must agree about.

    Returns:
      The exit status of this process.
    """
    if rank_info.size == 1:
        return body(SingleProcess(rank_info))
    world: Optional[SingleProcess] = None
    try:
        cuda = opts.device != "cpu" and torch.cuda.is_available()
        world = join(rank_info, opts.dist_timeout, cuda, params)
        status = body(world)
        world.close()
        return status
    except Disagreement as e:
        if rank_info.rank in e.ranks:
            report_error(e)
        return EXIT_REPORTED if rank_info.spawned else 1
    except UserError as e:
        if world is None or world.claims_report():
            report_error(e)
        return EXIT_REPORTED if rank_info.spawned else 1
    except PeerLost as e:
        logging.info("no answer from the other processes: %s", e)
        if not rank_info.spawned and (world is None or world.claims_report()):
            report_error(UserError(f"rank {rank_info.rank} has no answer from the others ({e})"))
        return EXIT_PEER_LOST if rank_info.spawned else 1


def join(
    rank_info: RankInfo, timeout: float, cuda: bool, params: Mapping[str, object] = MappingProxyType({})
) -> SingleProcess:
    """Join the other processes; return the group when all are there.

    Args:
      rank_info: the place of this process.
      timeout: seconds after which a process that does not answer counts as lost.
      cuda: whether gradients are on GPUs.
      params: all options, which the processes must agree about.

    Raises:
      PeerLost: not all processes came.
      UserError: there are more processes than GPUs on this machine, or the processes differ.
    """
    if cuda and rank_info.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"{rank_info.local_size} processes on this machine, which has {torch.cuda.device_count()} GPUs: "
            "start at most one for each"
        )
    if cuda:
        torch.cuda.set_device(rank_info.local_rank)
    return ProcessGroup(rank_info, timeout, cuda, params)


@contextlib.contextmanager
def peer_errors(kind: Type[Exception] = RuntimeError) -> Iterator[None]:
    """Convert errors of ``torch.distributed`` to PeerLost, except out-of-memory errors.

    Args:
      kind: RuntimeError, where nothing else raises one; ConnectionError where the errors of
        ``torch.distributed`` have been set apart.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except kind as e:
        raise PeerLost(" ".join(str(e).split())[:200]) from e

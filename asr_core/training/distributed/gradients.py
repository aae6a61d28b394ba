"""Gradients of a step, summed over the processes that train together.

Gradients are *summed*, as losses are over the utterances of a batch: N processes with one batch
each compute the gradient of one process with all their utterances, and nothing else in training
knows how many there are, except the counter of reference batches (``--ref-duration``). Averaging
would give 1/N of it, which ScaledAdam would not notice but other optimizers would.

The sum is that of torch's DistributedDataParallel: gradients lie in buckets of 25 MiB, in the
reverse order of the model's parameters, and a bucket travels as soon as all of it is there, while
the backward pass goes on. DistributedDataParallel does not see the forward pass. What it wraps is a
module that returns a zero which depends on each parameter, without a gradient for any; the zero is
added to the loss. Hence

- a process takes part without a batch, or with parameters that its batch does not touch: each
  parameter is reported as done, and counts as zeros in the sum;
- the batches of a step but the last (``--accum-grad``) go backward without an exchange;
- the model, its checkpoints, averages and the optimizer keep their names, and a compiler sees the
  same model as in a single process.

A parameter that has no gradient on any process stays without one.
"""

import contextlib
import warnings
from typing import Callable, ContextManager, Dict, List, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asr_core.ops.context import Context
from asr_core.training.batch_loss import BatchLoss
from asr_core.training.distributed.world import Batch, PeerLost, ProcessGroup, SingleProcess, peer_errors
from asr_core.utils.errors import UserError

_BUCKET_MB = 25.0  # DistributedDataParallel's own; the first bucket to travel has 1 MiB
_COMPRESSED = {"none": None, "fp16": torch.float16, "bf16": torch.bfloat16}
# Largest value of a compressed sum: a factor of two below float16's limit, because a bucket's scale
# is a power of two that is at most one step too large.
_LARGEST = 32768.0
_TINY = 1e-30  # in place of the largest value of a bucket of zeros


class Gradients:
    """The gradients of one step, here of a single process.

    Args:
      scaler: loss scaler of float16; may be disabled.
    """

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self.scaler = scaler

    def loss_of(self, batch: Optional[Batch], compute: Callable[[Batch], BatchLoss]) -> Optional[BatchLoss]:
        """Return the loss of a batch; None if this process has no batch and others have.

        All processes call this, and :meth:`add` after it.

        Args:
          batch: the batch.
          compute: computes its loss.
        """
        return None if batch is None else compute(batch)

    def add(self, loss: Optional[Tensor], last: bool) -> None:
        """Add the gradient of a batch's loss to the parameters' ``grad``.

        All processes call this equally often.

        Args:
          loss: a scalar; None if this process has no batch and others have.
          last: whether the step ends with this batch; ``grad`` is then the sum over all batches of
            the step and all processes.

        Raises:
          PeerLost: another process has ended or does not answer.
        """
        if loss is not None:
            self.scaler.scale(loss).backward()


class SummedGradients(Gradients):
    """The gradients of one step, summed over several processes.

    Args:
      model: the model; the processes have equal weights.
      scaler: loss scaler of float16; may be disabled.
      group: the processes.
      compression: type in which gradients travel: "none" (their own), "fp16" or "bf16".
      bucket_mb: size of a bucket in MiB.
    """

    def __init__(
        self,
        model: nn.Module,
        scaler: torch.amp.GradScaler,
        group: "dist.ProcessGroup",
        compression: str = "none",
        bucket_mb: float = _BUCKET_MB,
    ) -> None:
        super().__init__(scaler)
        # A convolution's gradient may have another memory layout than its bucket. Copying it takes
        # a moment, and DistributedDataParallel would warn of it.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._sums = _BucketSums(self._params, group, _COMPRESSED[compression])
        # Buckets are those of a rehearsal, and not of the first step: they remain the same when a
        # run continues, and with them the order of additions.
        with peer_errors():
            self._ddp = DistributedDataParallel(
                _Anchor(model), process_group=group, bucket_cap_mb=bucket_mb, gradient_as_bucket_view=True
            )
        self._ddp.broadcast_buffers = False
        self._ddp.register_comm_hook(self._sums, lambda sums, bucket: sums.start(bucket))
        self._backward(self._anchor(in_order=True))
        model.zero_grad(set_to_none=True)

    def add(self, loss: Optional[Tensor], last: bool) -> None:
        if last:
            anchor = self._anchor()  # made after the loss, so it is the first to go backward
            loss = anchor if loss is None else loss + anchor
        if loss is not None:
            self._backward(self.scaler.scale(loss))

    def _anchor(self, in_order: bool = False) -> Tensor:
        """Return a zero that depends on each parameter, and expect all gradients to be summed."""
        with peer_errors():
            zero: Tensor = self._ddp(in_order)
            return zero

    def _backward(self, total: Tensor) -> None:
        """Run the backward pass, at the end of which all sums that were expected are there."""
        try:
            with peer_errors(ConnectionError):
                total.backward()
                unused = self._sums.finish()
        except RuntimeError as e:
            if self._sums.failure:  # rather than an error of the backward pass itself
                raise PeerLost(" ".join(self._sums.failure.split())[:200]) from e
            raise
        for index in unused:
            self._params[index].grad = None


def gradients_of(
    model: nn.Module, scaler: torch.amp.GradScaler, world: SingleProcess, compression: str = "none"
) -> Gradients:
    """Return what computes the gradients of ``model`` over all processes.

    Args:
      model: the model, with equal weights on all of them.
      scaler: loss scaler of float16; may be disabled.
      world: the processes that train together.
      compression: ``--ddp-compression``.

    Raises:
      UserError: there is nothing to compress.
    """
    if isinstance(world, ProcessGroup):
        return SummedGradients(model, scaler, world.gradient_group, compression)
    if compression != "none":
        raise UserError(f"--ddp-compression {compression}: a single process sends no gradients: leave it out")
    return Gradients(scaler)


class _Anchor(nn.Module):
    """A module whose output is a zero that depends on each parameter of ``model``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._leaves = [p for p in model.parameters() if p.requires_grad]

    def forward(self, in_order: bool) -> Tensor:
        """Return the zero.

        Args:
          in_order: in the backward pass, report the parameters one by one, the last one first.
        """
        if not in_order:
            return _Zero.apply(*self._leaves)
        zero = self._leaves[0].new_zeros(())
        for p in self._leaves:
            zero = _Zero.apply(zero, p)
        return zero


class _Zero(torch.autograd.Function):
    """Zero, as a function of any tensors, none of which gets a gradient."""

    @staticmethod
    def forward(ctx: Context, *inputs: Tensor) -> Tensor:
        ctx.num = len(inputs)
        return inputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[None, ...]:
        return (None,) * ctx.num


class _BucketSums:
    """The sums of buckets of gradients over all processes.

    Args:
      params: all parameters.
      group: the processes.
      dtype: type in which gradients travel; None: their own.

    Attributes:
      failure: what a lost connection reported; empty if nothing did.
    """

    def __init__(
        self, params: List[nn.Parameter], group: "dist.ProcessGroup", dtype: Optional[torch.dtype]
    ) -> None:
        self.failure = ""
        self._group = group
        self._dtype = dtype
        self._index: Dict[Tensor, int] = {p: i for i, p in enumerate(params)}
        self._used = torch.zeros(len(params), dtype=torch.int32)
        self._counting: Optional["dist.Work"] = None
        nccl = dist.get_backend(group) == "nccl"
        # Futures of gloo do not make streams of a GPU wait, in many versions of torch.
        self._waits = params[0].is_cuda and not nccl
        # Where a bucket waits for its common scale, so that the backward pass does not.
        self._stream = torch.cuda.Stream(params[0].device) if nccl and dtype == torch.float16 else None

    def start(self, bucket: "dist.GradBucket") -> "torch.futures.Future[Tensor]":
        """Start to sum a bucket; return its future sum, in the memory of the bucket."""
        try:
            future = self._sum(bucket.buffer())
            for p in bucket.parameters():
                if p.grad is not None:
                    self._used[self._index[p]] = 1
            if bucket.is_last():
                self._counting = dist.all_reduce(self._used, async_op=True)
            return future
        except RuntimeError as e:
            self.failure = str(e)
            raise

    def finish(self) -> List[int]:
        """Return the numbers of the parameters that have no gradient on any process."""
        if self._counting is None:
            return []
        try:
            self._counting.wait()
        except RuntimeError as e:
            self.failure = str(e)
            raise
        unused = (self._used == 0).nonzero().flatten().tolist() if int(self._used.min()) == 0 else []
        self._counting = None
        self._used.zero_()
        return unused

    def _sum(self, values: Tensor) -> "torch.futures.Future[Tensor]":
        """Start to sum ``values`` (number of elements,) in place."""
        if self._dtype is None or values.element_size() <= 2:
            return self._all_reduce(values).then(lambda done: self._value(done))
        with self._aside():
            scale = self._common_scale(values) if self._dtype == torch.float16 else None
            small = (values if scale is None else values * scale).to(self._dtype)
            future = self._all_reduce(small)

        def widen(done: "torch.futures.Future[List[Tensor]]") -> Tensor:
            values.copy_(self._value(done))
            if scale is None:
                return values
            if scale.is_cuda:  # its memory is another stream's, which may use it again
                scale.record_stream(torch.cuda.current_stream(scale.device))
            return values.div_(scale)

        return future.then(widen)

    def _all_reduce(self, values: Tensor) -> "torch.futures.Future[List[Tensor]]":
        """Start to sum ``values`` in place, as they are; return the future that has them."""
        if not self._waits:
            return dist.all_reduce(values, group=self._group, async_op=True).get_future()
        dist.all_reduce(values, group=self._group)
        future: "torch.futures.Future[List[Tensor]]" = torch.futures.Future()
        future.set_result([values])
        return future

    def _value(self, done: "torch.futures.Future[List[Tensor]]") -> Tensor:
        """Return what has arrived; note a failure."""
        try:
            return done.value()[0]
        except RuntimeError as e:
            self.failure = str(e)
            raise

    def _common_scale(self, values: Tensor) -> Tensor:
        """Return the power of two that makes ``values`` fit for a sum in float16 on all processes.

        It makes NaN of a bucket with a value that is not finite.
        """
        largest = torch.linalg.vector_norm(values, torch.inf)
        largest.nan_to_num_(nan=torch.inf)  # how NaN compares, backends do not say
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._group)
        room = _LARGEST / dist.get_world_size(self._group)
        return torch.exp2(torch.floor(torch.log2(room / largest.clamp_(min=_TINY))))

    def _aside(self) -> ContextManager[object]:
        """Return a context on the stream aside, after what the present one has done so far."""
        if self._stream is None:
            return contextlib.nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return torch.cuda.stream(self._stream)

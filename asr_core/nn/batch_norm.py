"""Batch normalisation that does not see padding.

With the padding among the frames, the statistics would depend on how utterances are put together in
batches.
"""

import contextlib
from typing import Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from asr_core.nn.recompute import once
from asr_core.ops.context import Context

# Groups of processes that share statistics (None: all processes); the last one holds, see
# synchronised().
_GROUPS: List[Optional[ProcessGroup]] = []


@contextlib.contextmanager
def synchronised(group: Optional[ProcessGroup] = None) -> Iterator[None]:
    """Compute the statistics of batch norms over the batches of all processes, in training steps
    within the block.

    Each process must run the same steps forward, within the block, and backward. If another one
    does not answer, both passes raise ConnectionError.

    Args:
      group: the processes; None takes all.
    """
    _GROUPS.append(group)
    try:
        yield
    finally:
        _GROUPS.pop()


class MaskedBatchNorm1d(nn.Module):
    """Batch normalisation over valid frames alone (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167).

    Mean and variance (biased, also in the running average) are those of the valid frames of the
    batch. Parameters and buffers have the names of ``nn.BatchNorm1d``. Computed in float32 at
    least.

    Args:
      num_features: size of the last axis.
      eps: added to the variance.
      momentum: weight of a batch in the running statistics; ``1 - decay``.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, pad_mask: Optional[Tensor] = None) -> Tensor:
        """Normalise x; padded frames become 0.

        Args:
          x: (N, T, C), or any (..., C).
          pad_mask: (N, T), or x's shape without C, True at padding; None without padding.

        Returns:
          (N, T, C)
        """
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            return self._train(x, pad_mask)
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        x = torch.addcmul(self.bias - self.running_mean * scale, x, scale)
        return x if pad_mask is None else x.masked_fill(pad_mask.unsqueeze(-1), 0.0)

    def _train(self, x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
        """Normalise x (N, T, C) by its own statistics, and update the running ones."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            y, mean, var = _BatchNorm.apply(wide, self.weight, self.bias, pad_mask, self.eps, _GROUPS[-1:])
        once(lambda: self._track(mean, var))
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of a batch, (C,) each."""
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)

    def extra_repr(self) -> str:
        """Return the sizes for ``print(model)``."""
        return f"{len(self.weight)}, eps={self.eps:g}, momentum={self.momentum:g}"


class _BatchNorm(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias at valid frames, 0 elsewhere.

    Keeps x (N, T, C) and its statistics alone.
    """

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        pad_mask: Optional[Tensor],
        eps: float,
        groups: List[Optional[ProcessGroup]],
    ) -> Tuple[Tensor, Tensor, Tensor]:
        # in a layer that is computed again, without asking the other processes again
        num, mean, var = once(lambda: _statistics(x, pad_mask, groups))
        inv_std = torch.rsqrt(var + eps)
        scale = weight * inv_std
        y = _zero_padding(torch.addcmul(bias - mean * scale, x, scale), pad_mask)
        ctx.save_for_backward(x, weight, mean, inv_std, num, pad_mask)
        ctx.groups = groups
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Context, dy: Tensor, *_: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, mean, inv_std, num, pad_mask = ctx.saved_tensors
        dy = _zero_padding(dy, pad_mask)
        normal = (x - mean) * inv_std
        sums = torch.stack([_sum(dy), _sum(dy * normal)])  # (2, C)
        dbias, dweight = (
            sums.clone()
        )  # of this process: gradients of parameters are summed over processes later
        for group in ctx.groups:
            with _connection():
                torch.distributed.all_reduce(sums, group=group)
        dx = _zero_padding((dy - sums[0] / num - normal * (sums[1] / num)) * (weight * inv_std), pad_mask)
        return dx, dweight, dbias, None, None, None


def _statistics(
    x: Tensor, pad_mask: Optional[Tensor], groups: List[Optional[ProcessGroup]]
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the number of valid frames, their mean (C,) and biased variance (C,), over all
    processes of the group, if there is one.
    """
    valid = x.numel() // x.size(-1) if pad_mask is None else (~pad_mask).sum()
    num = torch.as_tensor(valid, dtype=x.dtype, device=x.device)
    mean = _sum(_zero_padding(x, pad_mask)) / num.clamp(min=1)
    square = _sum(_zero_padding(x - mean, pad_mask).square_())
    for group in groups:  # what each process found, put together without cancellation (Chan et al. 1979)
        mine = torch.cat([num.view(1), mean, square])
        each = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size(group))]
        with _connection():
            torch.distributed.all_gather(each, mine, group=group)
        nums, means, squares = torch.stack(each).split([1, len(mean), len(mean)], dim=1)
        num = nums.sum()
        mean = (nums * means).sum(dim=0) / num.clamp(min=1)
        square = (squares + nums * (means - mean).square()).sum(dim=0)
    num = num.clamp(min=1)
    return num, mean, square / num


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Set the errors of a lost connection apart from others."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as e:
        raise ConnectionError(str(e)) from e


def _sum(x: Tensor) -> Tensor:
    """Sum x (N, T, C) over all axes but the last."""
    return x.flatten(0, -2).sum(dim=0)


def _zero_padding(x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
    """Return x (N, T, C) with zeros at padding (N, T)."""
    return x if pad_mask is None else x.masked_fill(pad_mask.unsqueeze(-1), 0.0)

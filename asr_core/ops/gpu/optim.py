"""Passes over all parameters of a model, which lie scattered in memory: one launch each, however
many parameters there are.

Tensors are cut into pieces of ``PIECE`` elements, of which each program has one; tables on the
device say to which tensor a piece belongs, where in it it begins, and at which addresses the tensor
and its like are in this step.
"""

from typing import List, Sequence, Tuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 4096  # elements of a program
_WARPS = 8
_ROWS = 256  # pieces whose sums a program adds up at a time


class Table:
    """N tensors, cut into S pieces.

    Attributes:
      owner: (S,) int32, the tensor of each piece.
      begin: (S,) int64, where in the tensor it begins.
      sizes: (N,) int64, numbers of elements.
      first: (N + 1,) int32, the first piece of each tensor, and S.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        numel = np.asarray(sizes, dtype=np.int64)
        count = -(-numel // PIECE)
        first = np.concatenate([[0], np.cumsum(count)])
        owner = np.repeat(np.arange(len(numel)), count)
        begin = (np.arange(first[-1]) - first[owner]) * PIECE
        self.device = device
        self.owner = torch.from_numpy(owner.astype(np.int32)).to(device)
        self.begin = torch.from_numpy(begin.astype(np.int64)).to(device)
        self.sizes = torch.from_numpy(numel).to(device)
        self.first = torch.from_numpy(first.astype(np.int32)).to(device)
        self._rows: Tuple[List[int], ...] = ()
        self._at = torch.empty(0, dtype=torch.int64)

    @property
    def pieces(self) -> int:
        """Their number S."""
        return len(self.owner)

    @property
    def count(self) -> int:
        """The number of tensors N."""
        return len(self.sizes)

    def addresses(self, *rows: List[int]) -> Tensor:
        """Return the addresses, each row's N by tensor, on the device: (number of rows, N) int64.

        They are copied only if they differ from those of the last call, without waiting for it.
        """
        if rows != self._rows:
            at = torch.from_numpy(np.array(rows, dtype=np.int64))
            at = at.pin_memory() if self.device.type == "cuda" else at
            self._at, self._rows = at.to(self.device, non_blocking=True), rows
        return self._at


@triton.jit
def _place(owner_at, begin_at, sizes_at, PIECE: tl.constexpr):
    """Return the tensor of this program's piece, its elements' places there, and their number."""
    piece = tl.program_id(0)
    tensor = tl.load(owner_at + piece)
    return tensor, tl.load(begin_at + piece) + tl.arange(0, PIECE), tl.load(sizes_at + tensor)


@triton.jit
def _float32(table_at, row, tensors, tensor):
    """Return a pointer to a tensor, whose address is in a row of the table."""
    return tl.load(table_at + row * tensors + tensor).to(tl.pointer_type(tl.float32))


@triton.jit
def _gradient(table_at, tensors, tensor, at, size):
    """Return the piece's gradients, zeros where there are none."""
    size = tl.where(tl.load(table_at + tensors + tensor) != 0, size, 0)
    return tl.load(_float32(table_at, 1, tensors, tensor) + at, at < size, other=0.0)


@triton.jit
def _gradient_sums(table_at, owner_at, begin_at, sizes_at, sums_at, tensors, pieces, PIECE: tl.constexpr):
    tensor, at, size = _place(owner_at, begin_at, sizes_at, PIECE)
    p = tl.load(_float32(table_at, 0, tensors, tensor) + at, at < size, other=0.0)
    g = _gradient(table_at, tensors, tensor, at, size)
    to = sums_at + tl.program_id(0)
    tl.store(to, tl.sum(g * g, 0))
    tl.store(to + pieces, tl.sum(p * g, 0))
    tl.store(to + 2 * pieces, tl.sum(p * p, 0))


@triton.jit
def _piece_sums(sums_at, first_at, totals_at, pieces, ROWS: tl.constexpr):
    """Add up a row of sums over the pieces of a tensor."""
    tensor, row = tl.program_id(0), tl.program_id(1)
    begin, end = tl.load(first_at + tensor), tl.load(first_at + tensor + 1)
    total = tl.zeros([ROWS], tl.float32)
    for piece in range(begin, end, ROWS):
        at = piece + tl.arange(0, ROWS)
        total += tl.load(sums_at + row * pieces + at, at < end, other=0.0)
    tl.store(totals_at + row * tl.num_programs(0) + tensor, tl.sum(total, 0))


def gradient_sums(table: Table, at: Tensor) -> Tensor:
    """Return the sums of g^2, p g and p^2 over each parameter p with gradient g, (3, N).

    They are added up in a fixed order.

    Args:
      table: the parameters.
      at: (2, N) int64, the addresses of the parameters and of their gradients, all float32; 0 for a
        gradient of zeros.
    """
    sums = torch.empty(3, table.pieces, device=table.device)
    totals = torch.empty(3, table.count, device=table.device)
    args = (at, table.owner, table.begin, table.sizes, sums, table.count, table.pieces)
    _gradient_sums[(table.pieces,)](*args, PIECE=PIECE, num_warps=_WARPS)
    _piece_sums[(table.count, 3)](sums, table.first, totals, table.pieces, ROWS=_ROWS)
    return totals


@triton.jit
def _adam_step(
    table_at, moments_at, owner_at, begin_at, sizes_at, rates_at, numbers_at, tensors,
    beta1, beta2, factor, eps, PIECE: tl.constexpr,
):  # fmt: skip
    tensor, at, size = _place(owner_at, begin_at, sizes_at, PIECE)
    weight = tl.load(numbers_at)
    size = tl.where(tl.load(numbers_at + 1) != 0.0, size, 0)
    mask = at < size
    p_at = _float32(table_at, 0, tensors, tensor) + at
    v_at = _float32(moments_at, 0, tensors, tensor) + at
    m_at = _float32(moments_at, 1, tensors, tensor) + at
    p, g = tl.load(p_at, mask, other=0.0), _gradient(table_at, tensors, tensor, at, size)
    v, m = tl.load(v_at, mask, other=0.0), tl.load(m_at, mask, other=0.0)
    rate, growth = tl.load(rates_at + tensor), tl.load(rates_at + tensors + tensor)
    v = beta2 * v + weight * g * g
    m = beta1 * m + rate * g / (factor * tl.sqrt(v) + eps) + growth * p
    tl.store(v_at, v, mask)
    tl.store(m_at, m, mask)
    tl.store(p_at, p + m, mask)


def adam_step(
    table: Table,
    at: Tensor,
    moments: Tensor,
    rates: Tensor,
    numbers: Tensor,
    *,
    beta1: float,
    beta2: float,
    factor: float,
    eps: float,
) -> None:
    """Update averages v, momenta m and parameters p with gradients g.

    v = beta2 v + weight g^2; m = beta1 m + rate g / (factor sqrt(v) + eps) + growth p; p += m.

    Args:
      table: the parameters.
      at: (2, N) int64, the addresses of p and g, as for :func:`gradient_sums`.
      moments: (2, N) int64, those of v and m.
      rates: (2, N) float32, rate and growth of each parameter.
      numbers: (2,) float32, the weight, and 0 if nothing is to be changed.
      beta1, beta2, factor, eps: see the formula.
    """
    args = (at, moments, table.owner, table.begin, table.sizes, rates, numbers, table.count)
    _adam_step[(table.pieces,)](*args, beta1, beta2, factor, eps, PIECE=PIECE, num_warps=_WARPS)


@triton.jit
def _move_means(table_at, owner_at, begin_at, sizes_at, weight_at, tensors, PIECE: tl.constexpr):
    tensor, at, size = _place(owner_at, begin_at, sizes_at, PIECE)
    mask = at < size
    mean_at = tl.load(table_at + tensor).to(tl.pointer_type(tl.float64)) + at
    now_at = _float32(table_at, 1, tensors, tensor) + at
    weight = tl.load(weight_at)
    mean = tl.load(mean_at, mask, other=0.0)
    now = tl.load(now_at, mask, other=0.0).to(tl.float64)
    tl.store(mean_at, mean * (1.0 - weight) + now * weight, mask)


def move_means(table: Table, at: Tensor, weight: float) -> None:
    """Move float64 means towards float32 tensors, by ``weight`` of the way.

    Args:
      table: the tensors.
      at: (2, N) int64, the addresses of the means and of the tensors.
      weight: between 0 and 1.
    """
    # a number that is given to a kernel becomes float32
    share = torch.full((1,), weight, dtype=torch.float64, device=table.device)
    args = (at, table.owner, table.begin, table.sizes, share, table.count)
    _move_means[(table.pieces,)](*args, PIECE=PIECE, num_warps=_WARPS)

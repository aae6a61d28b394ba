"""The perceptron of a ConvNeXt block, added to the block's input: one kernel on a GPU.

Its hidden array is the largest of a model. The kernels never write it, and compute its values again
in the backward pass, from the perceptron's input alone.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops.activation_linear import activation_linear
from asr_core.ops.balancer import CONSTANT, apply_balancer, balance_gradient
from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.gpu.traced import will_run
from asr_core.ops.operators import is_exported, is_traced, operator
from asr_core.ops.swoosh import SWOOSH, swoosh_backward, swoosh_forward

gpu_kernels = gpu.deferred("perceptron")
_OFFSET, _CONSTANT = SWOOSH["SwooshL"]
_WIDEST = 128  # channels of which a program of the kernels can hold enough positions


class Layers(NamedTuple):
    """Parameters of a perceptron of C channels and H hidden units.

    Attributes:
      weight1: (H, C).
      bias1: (H,).
      weight2: (C, H).
      bias2: (C,).
    """

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor


# of y, weight1, bias1, weight2 and bias2
_Gradients = Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _usable(x: Tensor, *others: Optional[Tensor]) -> bool:
    return gpu.usable(x, *others) and gpu.multiplies(x)


def _forward(x: Tensor, y: Tensor, layers: Layers, keep: Optional[Tensor]) -> Tensor:
    """Compute :func:`add_perceptron` by the kernels, or without autograd in torch's operations."""
    if _usable(x, y, *layers, keep):
        return gpu_kernels.forward(x, y, *layers, keep, _OFFSET, _CONSTANT)
    layers = Layers._make(w.to(y.dtype) for w in layers)  # the operator's, of a GPU without matrix units
    hidden = F.linear(y.permute(0, 2, 3, 1), layers.weight1, layers.bias1)
    active = swoosh_forward(hidden, _OFFSET, _CONSTANT)
    return _add(x, F.linear(active, layers.weight2, layers.bias2), keep)


def _add(x: Tensor, rows: Tensor, keep: Optional[Tensor]) -> Tensor:
    """Return ``x + keep * y`` (N, C, T, F) of y as rows (N, T, F, C)."""
    y = rows.permute(0, 3, 1, 2)
    return x + y if keep is None else torch.addcmul(x, y, keep.to(y.dtype).view(-1, 1, 1, 1))


def _backward(
    grad: Tensor,
    y: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    keep: Optional[Tensor],
    balance: List[float],
) -> _Gradients:
    """Return the gradients of y (N, C, T, F) and of the layers from that of the result."""
    if _usable(grad, y, weight1, bias1, weight2, keep):
        given = (grad, y, weight1, bias1, weight2, keep, balance)
        return gpu_kernels.backward(*given, _OFFSET, _CONSTANT, CONSTANT)
    types = [t.dtype for t in (y, weight1, bias1, weight2, bias1)]
    grad, weight1, bias1, weight2 = (t.to(y.dtype) for t in (grad, weight1, bias1, weight2))
    rows, grad = y.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)  # (N, T, F, C)
    grad = grad.contiguous() if keep is None else grad * keep.to(grad.dtype).view(-1, 1, 1, 1)
    hidden = F.linear(rows, weight1, bias1)
    active = swoosh_forward(hidden, _OFFSET, _CONSTANT)
    dh = swoosh_backward(hidden, torch.matmul(grad, weight2), _OFFSET)
    if balance:
        dh = apply_balancer(dh, hidden, (balance[0], balance[1], balance[2], balance[3]), balance[4], -1)
    dy = torch.matmul(dh, weight1).permute(0, 3, 1, 2)
    flat_grad, flat_dh = grad.flatten(0, 2), dh.flatten(0, 2)
    dweight1 = torch.matmul(flat_dh.t(), rows.reshape(-1, rows.size(3)))
    dweight2 = torch.matmul(flat_grad.t(), active.flatten(0, 2))
    grads = (dy, dweight1, flat_dh.sum(dim=0), dweight2, flat_grad.sum(dim=0))
    dy, dweight1, dbias1, dweight2, dbias2 = (g.to(dtype) for g, dtype in zip(grads, types))
    return dy, dweight1, dbias1, dweight2, dbias2


class _AddPerceptron(torch.autograd.Function):
    """Keeps y (N, C, T, F) and the parameters."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, y: Tensor, *rest: Any) -> Tensor:
        _keep(ctx, (x, y, *rest), x)
        return _forward(x, y, Layers(*rest[:4]), rest[4])

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        y, weight1, bias1, weight2, keep = ctx.saved_tensors
        grads = _backward(grad, y, weight1, bias1, weight2, keep, ctx.balance)
        return (grad.to(ctx.x_dtype), *grads, None, None)


def _keep(ctx: Context, inputs: Tuple[Any, ...], output: Tensor) -> None:
    x, y, weight1, bias1, weight2, _, keep, ctx.balance = inputs
    ctx.save_for_backward(y, weight1, bias1, weight2, keep)
    ctx.x_dtype = x.dtype


def _gradient(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
    y, weight1, bias1, weight2, keep = ctx.saved_tensors
    grads = _backward_operator(grad, y, weight1, bias1, weight2, keep, ctx.balance)
    return (grad.to(ctx.x_dtype), *grads, None, None)


def _like_sum(x: Tensor, y: Tensor, *_: object) -> Tensor:
    dtype = torch.promote_types(x.dtype, y.dtype)
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


def _like_inputs(
    grad: Tensor, y: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, *_: object
) -> _Gradients:
    dy = torch.empty_like(y, memory_format=torch.channels_last)
    weights = (w.new_empty(w.shape) for w in (weight1, bias1, weight2))
    dweight1, dbias1, dweight2 = weights
    return dy, dweight1, dbias1, dweight2, bias1.new_empty(weight2.shape[:1])


@operator("add_perceptron_backward", _like_inputs)
def _backward_operator(
    grad: Tensor,
    y: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    keep: Optional[Tensor],
    balance: List[float],
) -> _Gradients:
    dy, dw1, db1, dw2, db2 = _backward(grad, y, weight1, bias1, weight2, keep, balance)
    dy = dy.contiguous(memory_format=torch.channels_last)
    return dy, dw1.clone(), db1, dw2.contiguous().clone(), db2  # which must share no memory


@operator("add_perceptron", _like_sum, _gradient, _keep)
def _operator(
    x: Tensor,
    y: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    keep: Optional[Tensor],
    balance: List[float],
) -> Tensor:
    y = _forward(x, y, Layers(weight1, bias1, weight2, bias2), keep)
    return y.contiguous(memory_format=torch.channels_last)


def add_perceptron_plain(
    x: Tensor, y: Tensor, layers: Layers, keep: Optional[Tensor], balance: List[float]
) -> Tensor:
    """Return :func:`add_perceptron` by an operation for each of its steps."""
    rows = F.linear(y.permute(0, 2, 3, 1), layers.weight1, layers.bias1)
    if balance:
        rows = balance_gradient(rows, (balance[0], balance[1], balance[2], balance[3]), balance[4], -1)
    return _add(x, activation_linear(rows, layers.weight2, layers.bias2, "SwooshL"), keep)


def _has_kernels(x: Tensor, y: Tensor, layers: Layers, keep: Optional[Tensor]) -> bool:
    """Return whether there are kernels for these arguments, which may be a tracer's, without
    data.
    """
    one_type = torch.is_autocast_enabled(x.device.type) or all(w.dtype == y.dtype for w in layers)
    if y.size(1) > _WIDEST or not one_type:
        return False
    run = will_run if is_traced() else _usable
    return run(x, y, *layers, keep)


def add_perceptron(
    x: Tensor, y: Tensor, layers: Layers, keep: Optional[Tensor] = None, balance: Optional[List[float]] = None
) -> Tensor:
    """Return ``x + keep * linear2(SwooshL(linear1(y)))``, the layers applied to each position of y.

    Args:
      x: (N, C, T, F), best in channels-last memory format.
      y: likewise.
      layers: the perceptron's parameters.
      keep: (N, 1, 1, 1) numbers, 0 where a sequence is to stay x; or None, 1 for all.
      balance: the four bounds and ``grad_scale`` of
        :func:`~asr_core.ops.balancer.balance_gradient`, which then acts on the hidden units; None
        or nothing: it does not.

    Returns:
      (N, C, T, F)
    """
    balance = [] if balance is None else balance
    if is_exported():
        return add_perceptron_plain(x, y, layers, keep, balance)
    if not _has_kernels(x, y, layers, keep):
        return add_perceptron_plain(x, y, layers, keep, balance)
    device = x.device.type
    if torch.is_autocast_enabled(device):  # as autocast treats linear maps; the kernels take the weights
        y = y.to(torch.get_autocast_dtype(device))
    call = _operator if is_traced() else _AddPerceptron.apply
    return call(x, y, *layers, keep, balance)

"""Slopes of activations as bytes, for the backward pass.

A slope is ``code * step + lowest`` with a code from 0 to 255. Codes are rounded by chance, up with
the probability of the fraction, so that a gradient that is summed over many elements, as that of a
weight is, has the right mean; asymptotes of a slope stand at whole codes, and are exact.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.ops.context import Context
from asr_core.ops.cpu.dispatch import dense, like
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.operators import is_traced, like_first, operator

gpu_kernels = gpu.deferred("activations")


class Scale(NamedTuple):
    """What the codes of an activation's slopes stand for.

    Attributes:
      step: difference of the slopes of two codes.
      zero: the code of slope 0, which may be a fraction.
    """

    step: float
    zero: float


SWOOSH_SCALE = Scale(1.0 / 255.0, 0.08 * 255.0)  # slopes from -0.08 to 0.92
DOUBLE_SWISH_SCALE = Scale(1.0 / 204.0, 9.0)  # from -0.0437 to 1.1991; 0 and 1 are whole codes


def encode(slope: Tensor, x: Tensor, scale: Scale) -> Tensor:
    """Return the codes of the slopes (...) at x (...) in torch's operations: bytes (...), laid out
    like x.
    """
    bits = x.float().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    at = torch.arange(x.numel(), device=x.device).view(x.shape)
    h = bits ^ ((at * 0x9E3779B1) & 0xFFFFFFFF)
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    chance = ((h ^ (h >> 16)) >> 8).float() * 2.0**-24
    codes = (slope.float() / scale.step + scale.zero + chance).clamp_(0.0, 255.0)
    return torch.empty_like(x, dtype=torch.uint8).copy_(codes)


def slope_backward(codes: Tensor, dy: Tensor, scale: Scale) -> Tensor:
    """Return the product of ``dy`` (...) and the slopes of ``codes`` (...).

    Both are dense and laid out alike, and so is the result.
    """
    if gpu.usable(dy):
        return gpu_kernels.slope_backward(codes, dy, scale.step, -scale.zero * scale.step)
    slope = codes.to(torch.promote_types(dy.dtype, torch.float32)).sub_(scale.zero).mul_(scale.step)
    return slope.mul_(dy).to(dy.dtype)


def is_coded(x: Tensor) -> bool:
    """Return whether an activation of x (...) keeps codes rather than x for the backward pass.

    So it does in half precision on a GPU: one byte per element in place of two, with an error of a
    slope (at most 0.004 for Swoosh) like that of the numbers themselves. In float32 gradients are
    to be those of the formula.
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    return half and (x.is_cuda if is_traced() else gpu.usable(x))


def with_codes(x: Tensor, *_: object) -> Tuple[Tensor, Tensor]:
    """Return empty tensors like the results of an operator: an activation of x (...), and codes."""
    return like_first(x), torch.empty_like(dense(x), dtype=torch.uint8)


def keep_codes(ctx: Context, inputs: Tuple[object, ...], output: Tuple[Tensor, Tensor]) -> None:
    """Keep the codes of such an operator for the backward pass."""
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _like_dy(codes: Tensor, dy: Tensor, step: float, zero: float) -> Tensor:
    return torch.empty_like(codes, dtype=dy.dtype)


@operator("slope_backward", _like_dy)
def slope_backward_operator(codes: Tensor, dy: Tensor, step: float, zero: float) -> Tensor:
    """Do what :func:`slope_backward` does, as an operator."""
    codes = dense(codes)
    return slope_backward(codes, like(dy, codes), Scale(step, zero))

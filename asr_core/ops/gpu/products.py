"""Matrix products inside kernels."""

import os

import torch
import triton
import triton.language as tl

_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """Return a (M, K) b (K, N), of one type, as (M, N) in float32; M, N and K are at least 16."""
    if _INTERPRETED:  # its products would take bfloat16 for integers
        c = tl.dot(a.to(tl.float32), b.to(tl.float32))
    else:
        c = tl.dot(a, b, input_precision=PRECISION)
    return c


def precision() -> str:
    """Return how products of float32 matrices are computed: as torch is told to."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def block_width(width: int) -> int:
    """Return the width of a block that holds ``width`` columns and may be multiplied."""
    return max(16, triton.next_power_of_2(width))

"""Checks and conversions of the arguments that the RNN-T functions share."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import HAS_NUMBA
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.host import sent
from asr_core.ops.operators import is_traced
from asr_core.ops.rnnt import torch_backend, triton_backend
from asr_core.ops.rnnt.backend import RnntBackend
from asr_core.ops.rnnt.lattice import RNNT_TYPES, Lattice

if HAS_NUMBA:
    from asr_core.ops.rnnt import numba_backend

BACKENDS = ("auto", "torch", "numba", "triton", "torchaudio")


def computable(x: Tensor) -> Tensor:
    """Convert half precision to float32; return other types unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def backend_for(name: str, x: Tensor) -> RnntBackend:
    """Return the back end for tensors like ``x``."""
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    if name == "torchaudio":
        raise ValueError("back end torchaudio only computes rnnt_loss, from all logits")
    if name == "triton" and not gpu.usable(x):
        raise ValueError(
            f"back end triton computes float32 and half precision on a GPU, not {x.dtype} on {x.device.type}"
        )
    if name == "triton" or (name == "auto" and gpu.usable(x)):
        return triton_backend
    possible = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if name == "numba" and not possible:
        raise ValueError(
            f"back end numba computes float32 and float64 on the CPU, not {x.dtype} on {x.device.type}"
        )
    if name == "torch" or not possible or (name == "auto" and not HAS_NUMBA):
        return torch_backend
    if not HAS_NUMBA:
        raise ImportError("back end numba needs the package numba: pip install numba")
    return numba_backend


def check_within(x: Tensor, least: int, most: int, name: str) -> None:
    """Refuse indices outside [least, most]; on an accelerator its own indexing does.

    Tracing, there are no values to look at.
    """
    if x.device.type == "cpu" and not is_traced() and x.numel() > 0 and (x.min() < least or x.max() > most):
        raise ValueError(f"{name} must be in [{least}, {most}], found {x.min().item()} ... {x.max().item()}")


def check_contexts(lm: Tensor, symbols: Tensor) -> None:
    """Refuse lm (B, S + 1, ...) that does not fit symbols (B, S)."""
    if lm.shape[1] != symbols.shape[-1] + 1:
        raise ValueError(f"lm must have S + 1 = {symbols.shape[-1] + 1} contexts, not {lm.shape[1]}")


def check_projections(am: Tensor, lm: Tensor, weight: Tensor, bias: Tensor, symbols: Tensor) -> None:
    """Refuse projections am (B, T, J), lm (B, S + 1, J) and a linear map weight (C, J2), bias (C,)
    that do not fit together or symbols (B, S).
    """
    if am.ndim != 3 or lm.ndim != 3 or am.shape[0] != lm.shape[0] or am.shape[2] != lm.shape[2]:
        raise ValueError(
            f"am must be (B, T, J) and lm (B, S + 1, J), not {tuple(am.shape)} and {tuple(lm.shape)}"
        )
    check_contexts(lm, symbols)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"weight must be (C, J) and bias (C,), not {tuple(weight.shape)} and {tuple(bias.shape)}"
        )


def check_type(rnnt_type: str) -> None:
    """Refuse unknown kinds of lattices."""
    if rnnt_type not in RNNT_TYPES:
        raise ValueError(f"rnnt_type must be one of {', '.join(RNNT_TYPES)}, not {rnnt_type!r}")


def make_lattice(
    sizes: Tuple[int, int, int],
    symbols: Tensor,
    blank: int,
    boundary: Optional[Tensor],
    rnnt_type: str,
    delay_penalty: float,
    fast_emit_lambda: float,
) -> Lattice:
    """Check the arguments that all losses share; ``sizes`` are B, T and C."""
    num_batch, num_frames, num_columns = sizes
    check_type(rnnt_type)
    if symbols.ndim != 2 or symbols.shape[0] != num_batch:
        raise ValueError(f"symbols must be ({num_batch}, S), not {tuple(symbols.shape)}")
    if not 0 <= blank < num_columns:
        raise ValueError(f"termination_symbol must be in [0, {num_columns}), not {blank}")
    num_symbols = symbols.shape[1]
    check_within(symbols, 0, num_columns - 1, "symbols")
    symbols = symbols.to(torch.int64).contiguous()
    boundary = whole_boundary(boundary, (num_batch, num_symbols, num_frames), symbols.device)
    if not fast_emit_lambda >= 0.0:
        raise ValueError(f"fast_emit_lambda must be at least 0, not {fast_emit_lambda}")
    return Lattice(symbols, boundary, int(blank), rnnt_type, float(delay_penalty), float(fast_emit_lambda))


def whole_boundary(boundary: Optional[Tensor], sizes: Tuple[int, int, int], device: torch.device) -> Tensor:
    """Check the boundary (B, 4) of lattices, or make it; ``sizes`` are B, S and T."""
    num_batch, num_symbols, num_frames = sizes
    if boundary is None:
        whole = torch.tensor([0, 0, num_symbols, num_frames]).repeat(num_batch, 1)
        return sent(whole, device)
    if boundary.shape != (num_batch, 4):
        raise ValueError(f"boundary must be ({num_batch}, 4), not {tuple(boundary.shape)}")
    boundary = boundary.to(device, torch.int64).contiguous()
    check_within(boundary[:, 2], 0, num_symbols, "the boundary's number of symbols")
    check_within(boundary[:, 3], 0, num_frames, "the boundary's number of frames")
    if boundary.device.type != "cpu" or is_traced():
        return boundary
    if (boundary[:, :2].lt(0) | boundary[:, :2].gt(boundary[:, 2:])).any():
        raise ValueError(
            "the boundary's first symbol and frame must be in [0, number of symbols] "
            "and [0, number of frames]"
        )
    return boundary


def reduce_losses(loss: Tensor, reduction: Optional[str]) -> Tensor:
    """Reduce losses (B,) over the batch."""
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    raise ValueError(f"reduction must be none, mean or sum, not {reduction!r}")

"""The device that a program computes on."""

import torch

from asr_core.utils.errors import UserError


def pick_device(name: str, index: int = 0) -> torch.device:
    """Return the device that ``--device`` names; ``auto`` takes CUDA if there is any.

    Args:
      name: ``auto``, ``cpu`` or ``cuda``.
      index: index of the CUDA device.

    Raises:
      UserError: CUDA is requested but not available.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise UserError("--device cuda: this machine, or this build of torch, has no CUDA; give --device cpu")
    return torch.device("cuda", index) if has_cuda and name != "cpu" else torch.device("cpu")


def to_host(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in memory of the CPU, from a GPU by way of pinned memory, which is several times
    as fast.
    """
    if x.device.type != "cuda":
        return x.cpu()
    out = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    out.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return out


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``x`` on ``device``; to a GPU it is copied while the host goes on."""
    if device.type != "cuda" or x.device == device:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)

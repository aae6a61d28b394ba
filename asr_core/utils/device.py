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

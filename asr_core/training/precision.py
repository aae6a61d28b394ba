"""Precision of training."""

from typing import Optional

import torch

from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError


def autocast_dtype(opts: ProcessOptions, device: torch.device) -> Optional[torch.dtype]:
    """Return the reduced precision of the forward pass, or None for float32.

    Raises:
      UserError: the device cannot train in that precision.
    """
    if not (opts.use_fp16 or opts.use_bf16):
        return None
    if opts.use_fp16 and device.type != "cuda":
        raise UserError(
            f"--use-fp16 1: mixed precision needs a CUDA device for float16, and this run is "
            f"on the {device.type}; leave it out, or try --use-bf16 1, which works on any device"
        )
    if opts.use_bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("--use-bf16 1: this GPU has no bfloat16; use --use-fp16 1")
    return torch.float16 if opts.use_fp16 else torch.bfloat16

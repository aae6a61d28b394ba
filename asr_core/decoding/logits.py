"""Conversion of logits to the log-probabilities that a search adds up."""

import math

import torch
from torch import Tensor

from asr_core.decoding.beam_options import LogitAdjustment


def adjusted_log_probs(logits: Tensor, blank_id: int, opts: LogitAdjustment) -> Tensor:
    """Return the log-softmax (..., V) of ``logits`` (..., V) after blank penalty and temperature.

    The penalty is subtracted in place. The result is float32 at least: scores are sums of many.
    """
    logits = single(logits)
    if opts.blank_penalty != 0:
        logits[..., blank_id] -= opts.blank_penalty
    if opts.temperature != 1:
        if not (opts.temperature > 0 and math.isfinite(opts.temperature)):
            raise ValueError(f"temperature must be positive, got {opts.temperature}")
        logits = logits / opts.temperature
    return logits.log_softmax(dim=-1)


def single(x: Tensor) -> Tensor:
    """Return ``x`` in float32 if it is in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

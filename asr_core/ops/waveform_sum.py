"""Utterances as sums of waveforms, each at its place and level."""

import torch
from torch import Tensor

from asr_core.ops.gpu.dispatch import deferred, usable

_kernels = deferred("waveform_sum")


def sum_of_waveforms(
    flat: Tensor, gains: Tensor, table: Tensor, layers: Tensor, sizes: Tensor, width: int
) -> Tensor:
    """Return utterances (N, width) float32, zeros after the end of each.

    Args:
      flat: float32 samples of M waveforms.
      gains: (M,) float32, their factors.
      table: (M, 3) int64: where each begins in ``flat``, its size, where in its utterance.
      layers: (N, L) int64, the waveforms of each utterance, added in this order; -1: no more.
      sizes: (N,) int64, samples of each utterance.
      width: of the longest of them.
    """
    if usable(flat, gains):
        mixed: Tensor = _kernels.sum_of_waveforms(flat, gains, table, layers, sizes, width)
        return mixed
    return sum_of_waveforms_plain(flat, gains, table, layers, sizes, width)


def sum_of_waveforms_plain(
    flat: Tensor, gains: Tensor, table: Tensor, layers: Tensor, sizes: Tensor, width: int
) -> Tensor:
    """Return what :func:`sum_of_waveforms` does, by torch's own operations."""
    at = torch.arange(width, device=flat.device)
    beyond = at >= sizes.unsqueeze(1)
    out = flat.new_zeros(len(layers), width)
    for layer in layers.unbind(dim=1):
        unknown, here = (layer < 0).unsqueeze(1), layer.clamp(min=0)
        spot, size, start = (x.unsqueeze(1) for x in table[here].unbind(dim=1))  # (N, 1) each
        place = at - start
        outside = (place < 0) | (place >= size) | unknown | beyond
        part = flat[(spot + place).masked_fill(outside, 0)] * gains[here].unsqueeze(1)
        out += part.masked_fill(outside, 0.0)
    return out

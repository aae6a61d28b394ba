"""Waveforms of a batch on the device: resampled, brought to their levels, and mixed.

The loader reads waveforms one after another into one tensor, in 16 bits where these say it all. The
device makes rows of utterances of them, without asking for any value: sizes are known beforehand.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.data.polyphase import Resampling, resample_batch
from asr_core.data.waveforms import CutAudio, Waveform
from asr_core.ops.waveform_sum import sum_of_waveforms
from asr_core.utils.device import to_device

_LEVEL = 1.0 / 32768.0  # of one step of 16 bits
_AS_IT_IS = -1.0  # in place of a ratio of energies


class Alike(NamedTuple):
    """Waveforms to which the same is done.

    Attributes:
      steps: resamplings.
      number: of waveforms.
      read, size: samples of the longest, as read and in the end.
    """

    steps: List[Resampling]
    number: int
    read: int
    size: int


class MixPlan(NamedTuple):
    """How the waveforms of N utterances become their audio.

    Attributes:
      floats: (num_samples,) float32, samples of the waveforms that need more than 16 bits.
      groups: the M waveforms, in this order.
      table: (M, 7) int64, of each waveform: where it begins among all samples, those of 16 bits
        first; its samples as read, after resampling, and in the end; where it begins among the
        samples of all groups' rows; where in its utterance; the reference of its level.
      ratios: (M,) float32, its energy relative to that of the reference; below 0: as it is.
      layers: (N, L) int64, the waveforms of each utterance; -1: no more.
      made, sizes: (N,) int64, samples of the mix and of the utterance, see :class:`CutAudio`.
      width: samples of the longest utterance.
      mirrored: whether a mix has fewer samples than its utterance.
    """

    floats: Tensor
    groups: List[Alike]
    table: Tensor
    ratios: Tensor
    layers: Tensor
    made: Tensor
    sizes: Tensor
    width: int
    mirrored: bool

    def to(self, device: torch.device) -> "MixPlan":
        """Return it on a device, without waiting for it."""
        parts = (self.floats, self.table, self.ratios, self.layers, self.made, self.sizes)
        floats, table, ratios, layers, made, sizes = (to_device(x, device) for x in parts)
        return MixPlan(floats, self.groups, table, ratios, layers, made, sizes, self.width, self.mirrored)


def plan_mix(cuts: Sequence[CutAudio]) -> Tuple[Tensor, MixPlan]:
    """Lay out the waveforms of utterances.

    Returns:
      The samples of 16 bits, (num_samples,) int16, and what is to be done.
    """
    waveforms = [(row, w) for row, cut in enumerate(cuts) for w in cut.waveforms]
    by_steps: Dict[Tuple[Resampling, ...], List[int]] = {}
    for i, (_, waveform) in enumerate(waveforms):
        by_steps.setdefault(waveform.steps, []).append(i)
    order = [i for members in by_steps.values() for i in members]
    place = {i: m for m, i in enumerate(order)}
    first_of_row = np.cumsum([0, *(len(cut.waveforms) for cut in cuts)])
    groups: List[Alike] = []
    spots: List[int] = []
    spot = 0
    for steps, members in by_steps.items():
        read = max(len(waveforms[i][1].samples) for i in members)
        size = max(waveforms[i][1].size for i in members)
        groups.append(Alike(list(steps), len(members), read, size))
        spots += range(spot, spot + size * len(members), size)
        spot += size * len(members)
    words, floats, begins = _laid_out([waveforms[i][1] for i in order])
    table, ratios = [], []
    for begin, spot, i in zip(begins, spots, order):
        row, w = waveforms[i]
        reference = place[int(first_of_row[row]) + cuts[row].reference]
        table.append([begin, len(w.samples), w.made, w.size, spot, w.start, reference])
        ratios.append(_AS_IT_IS if w.snr is None else 10.0 ** (-w.snr / 10.0))
    depth = max((len(cut.waveforms) for cut in cuts), default=0)
    layers = torch.full((len(cuts), depth), -1, dtype=torch.int64)
    for row, (first, end) in enumerate(zip(first_of_row, first_of_row[1:])):
        layers[row, : end - first] = torch.tensor([place[i] for i in range(first, end)])
    return words, MixPlan(
        floats=floats,
        groups=groups,
        table=torch.tensor(table, dtype=torch.int64).view(-1, 7),
        ratios=torch.tensor(ratios, dtype=torch.float32),
        layers=layers,
        made=torch.tensor([cut.made for cut in cuts], dtype=torch.int64),
        sizes=torch.tensor([cut.size for cut in cuts], dtype=torch.int64),
        width=max((cut.size for cut in cuts), default=0),
        mirrored=any(cut.made < cut.size for cut in cuts),
    )


def _laid_out(waveforms: Sequence[Waveform]) -> Tuple[Tensor, Tensor, List[int]]:
    """Return all samples of 16 bits, all others, and where each waveform begins in both."""
    kinds: Tuple[List[np.ndarray], List[np.ndarray]] = ([], [])
    for waveform in waveforms:
        kinds[waveform.samples.dtype != np.int16].append(waveform.samples)
    ends = [0, sum(map(len, kinds[0]))]  # of what is laid out so far, of either kind
    begins = []
    for waveform in waveforms:
        kind = int(waveform.samples.dtype != np.int16)
        begins.append(ends[kind])
        ends[kind] += len(waveform.samples)
    words, floats = (
        np.concatenate([np.zeros(0, dtype), *parts]) for dtype, parts in zip((np.int16, np.float32), kinds)
    )
    return torch.from_numpy(words), torch.from_numpy(floats), begins


def mix(words: Tensor, plan: MixPlan) -> Tensor:
    """Return the audio (N, width) float32 of a batch, zeros after the end of an utterance.

    Args:
      words: (num_samples,) int16, the samples of 16 bits.
      plan: on the same device.
    """
    flat = torch.cat([words.float() * _LEVEL, plan.floats])
    begin, read, made, size, spot, start, reference = plan.table.unbind(dim=1)  # (M,) each
    first, parts, energies = 0, [], []
    for group in plan.groups:
        rows = slice(first, first + group.number)
        first += group.number
        part = _rows_of(flat, begin[rows], read[rows], group.read)
        if group.steps:
            part = _resampled(part, group.steps, read[rows])
            part = _with_ends(part, made[rows], size[rows], group.size)
        parts.append(part.flatten())
        energies.append(part.square().sum(dim=1) / size[rows])
    if not parts or not plan.width:
        return flat.new_zeros(len(plan.sizes), plan.width)
    energy = torch.cat(energies)
    wanted = energy[reference] * plan.ratios
    gains = (wanted / energy).sqrt().masked_fill((wanted <= 0) | (energy <= 0), 1.0)
    table = torch.stack([spot, size, start], dim=1)
    audio = sum_of_waveforms(torch.cat(parts), gains, table, plan.layers, plan.sizes, plan.width)
    return _with_ends(audio, plan.made, plan.sizes, plan.width) if plan.mirrored else audio


def _rows_of(flat: Tensor, begins: Tensor, sizes: Tensor, width: int) -> Tensor:
    """Return rows (n, width) of samples that begin and end somewhere in ``flat``, then zeros."""
    table = torch.stack([begins, sizes, torch.zeros_like(sizes)], dim=1)
    each = torch.arange(len(sizes), device=flat.device).unsqueeze(1)
    return sum_of_waveforms(flat, flat.new_ones(len(sizes)), table, each, sizes.contiguous(), width)


def _resampled(x: Tensor, steps: Sequence[Resampling], sizes: Tensor) -> Tensor:
    """Return rows of ``sizes`` samples (n,), resampled."""
    for i, step in enumerate(steps):
        if i:  # the filters of the step before ring on after the end
            x = x.masked_fill(torch.arange(x.shape[1], device=x.device) >= sizes.unsqueeze(1), 0.0)
        x = resample_batch(x, step)
        sizes = -(-sizes * step.target // step.source)
    return x


def _with_ends(x: Tensor, made: Tensor, sizes: Tensor, width: int) -> Tensor:
    """Return rows (n, width) with ``sizes`` samples each, of which ``made`` are those of ``x``; the
    rest of them is mirrored.
    """
    at = torch.arange(width, device=x.device)
    last = made.unsqueeze(1) - 1
    source = torch.where(at <= last, at, 2 * last - at).clamp(0, x.shape[1] - 1)
    return x.gather(1, source).masked_fill(at >= sizes.unsqueeze(1), 0.0)

"""Cases: features and augmentation on the device."""

from typing import Any, List, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.data.audio import resample
from asr_core.data.device_features import FeatureForm, batch_features
from asr_core.data.features import LOG_EPS, extract_features
from asr_core.data.masks import Masks
from asr_core.data.mixing import MixPlan, mix, plan_mix
from asr_core.data.polyphase import Resampling, num_resampled, resample_batch
from asr_core.data.waveforms import CutAudio, Waveform
from gpu_check.cases import Case, Draw, Sizes, Work

_FORM = FeatureForm()
_SLOWER = Resampling(14400, 16000, 0.9)
_RATES = (44100, 16000)


def _audio(draw: Draw, s: Sizes) -> Sequence[Any]:
    sizes = torch.linspace(s["samples"] / 2, s["samples"], s["utterances"]).long()
    frames = torch.tensor([_FORM.count_frames(size) for size in sizes.tolist()])
    audio = draw.normal(s["utterances"], s["samples"], scale=0.1, grad=False)
    audio[torch.arange(s["samples"]) >= sizes.unsqueeze(1)] = 0.0
    return [audio, sizes.to(draw.device), frames.to(draw.device)]


def _features(audio: Tensor, sizes: Tensor, frames: Tensor) -> Tensor:
    return batch_features(audio, sizes, frames, _FORM)


def _features_one_by_one(audio: Tensor, sizes: Tensor, frames: Tensor) -> Tensor:
    out = torch.full((len(audio), int(frames.max()), _FORM.num_mel_bins), LOG_EPS)
    for row, samples, size in zip(out, audio.float(), sizes.tolist()):
        found = extract_features(samples[:size], *_FORM)
        row[: len(found)] = found
    return out


def _waveforms(draw: Draw, s: Sizes) -> Sequence[Any]:
    """Return utterances in 16 bits, of which some are played slower, with noise that covers each."""

    def sixteen_bits(size: int) -> np.ndarray:
        return (torch.randn(size, generator=draw.generator) * 3000).to(torch.int16).numpy()

    cuts = []
    for i in range(s["utterances"]):
        size = s["samples"] - i * s["samples"] // (2 * s["utterances"])
        steps = (_SLOWER,) if i % 3 == 2 else ()
        made = num_resampled(size, _SLOWER) if steps else size
        mixed = [Waveform(sixteen_bits(size), steps, made, made)]
        for start in range(0, made, s["noise"]):
            length = min(s["noise"], made - start)
            mixed.append(Waveform(sixteen_bits(length), (), length, length, start, 10.0 + i % 11))
        cuts.append(CutAudio(mixed, 0, made, made))
    words, plan = plan_mix(cuts)
    return [words.to(draw.device), plan.to(torch.device(draw.device))]


def _mixed_one_by_one(words: Tensor, plan: MixPlan) -> Tensor:
    plan = plan.to(torch.device("cpu"))
    steps = [group.steps for group in plan.groups for _ in range(group.number)]
    parts = []
    for (begin, read, *_), left in zip(plan.table.tolist(), steps):
        x = words[begin : begin + read].float() / 32768.0
        for step in left:
            x = step.on_cpu(x)
        parts.append(x.double())
    out = torch.zeros(len(plan.sizes), plan.width, dtype=torch.float64)
    for row, members in zip(out, plan.layers.tolist()):
        for m in (m for m in members if m >= 0):
            start, reference = plan.table[m, 5:].tolist()
            ratio = float(plan.ratios[m])
            power = [float(parts[i].square().mean()) for i in (reference, m)]
            gain = 1.0 if ratio < 0 else (power[0] * ratio / power[1]) ** 0.5
            row[start : start + len(parts[m])] += gain * parts[m]
    return out


def _fast_audio(draw: Draw, s: Sizes) -> Sequence[Any]:
    return [draw.normal(s["utterances"], s["samples"], scale=0.1, grad=False)]


def _masks(draw: Draw, s: Sizes) -> Sequence[Any]:
    n, t, c = s["utterances"], s["frames"], 80
    warps = torch.tensor([[i, t - 2 * i, t // 3, t // 3 + i % 7 - 3] for i in range(n)])
    masks = [draw.bernoulli(0.15, n, t), draw.bernoulli(0.2, n, c)]
    return [draw.normal(n, t, c, grad=False), warps.to(draw.device), *masks]


def _masked(x: Tensor, warps: Tensor, times: Tensor, bins: Tensor) -> Tensor:
    return Masks(times, bins, torch.ones_like(times), mean=True, warps=warps).apply(x)


def _masked_one_by_one(x: Tensor, warps: Tensor, times: Tensor, bins: Tensor) -> Tensor:
    out = x.clone()
    for row, (start, length, centre, moved) in zip(out, warps.tolist()):
        span = row[start : start + length].clone()
        parts = ((span[:centre], moved), (span[centre:], length - moved))
        warped = [
            F.interpolate(part[None, None], (size, x.shape[2]), mode="bicubic", align_corners=False)[0, 0]
            for part, size in parts
        ]
        row[start : start + length] = torch.cat(warped)
    mean = out.mean(dim=(1, 2), keepdim=True)
    return torch.where(times.unsqueeze(2) | bins.unsqueeze(1), mean, out)


def _frames(s: Sizes) -> int:
    return s["utterances"] * _FORM.count_frames(s["samples"])


def cases() -> List[Case]:
    """Return the cases of this family."""
    common = {"dtypes": ("float32",), "must": False, "bench_dtype": "float32"}
    up, down = 160, 441  # 44.1 to 16 kHz in lowest terms
    return [
        Case(
            "fbank of a batch",
            _audio,
            _features,
            _features_one_by_one,
            tiny={"utterances": 3, "samples": 4001},
            odd={"utterances": 7, "samples": 77777},
            bench={"utterances": 20, "samples": 240_000},
            # the FFT of 512 samples, 257 x 80 filters
            forward=lambda s: Work(s["utterances"] * s["samples"], 80 * _frames(s), 53_000 * _frames(s)),
            slack=3.0,
            **common,
        ),
        Case(
            "resampling from 44.1 kHz",
            _fast_audio,
            lambda x: resample_batch(x, Resampling(*_RATES)),
            lambda x: resample(x.float(), *_RATES),
            tiny={"utterances": 2, "samples": 2000},
            odd={"utterances": 3, "samples": 33333},
            bench={"utterances": 20, "samples": 661_500},
            # filters of some 60 taps; laid out for matrix products they have 511, most of them zero
            forward=lambda s: Work(
                s["utterances"] * s["samples"],
                s["utterances"] * s["samples"] * up / down,
                s["utterances"] * s["samples"] * up / down * 2 * 60,
            ),
            slack=3.0,
            **common,
        ),
        Case(
            "waveforms, speeds and noise",
            _waveforms,
            mix,
            _mixed_one_by_one,
            tiny={"utterances": 3, "samples": 1500, "noise": 700},
            odd={"utterances": 7, "samples": 77777, "noise": 33333},
            bench={"utterances": 20, "samples": 240_000, "noise": 160_000},
            # speech and noise in 16 bits; a level and a sum for each sample
            forward=lambda s: Work(
                0,
                1.05 * s["utterances"] * s["samples"],  # the longest slowed one is the width
                4 * s["utterances"] * s["samples"],
                other_bytes=2 * 2 * 0.75 * s["utterances"] * s["samples"],
            ),
            slack=3.0,
            **{**common, "must": True},
        ),
        Case(
            "SpecAugment of a batch",
            _masks,
            _masked,
            _masked_one_by_one,
            tiny={"utterances": 3, "frames": 90},
            odd={"utterances": 7, "frames": 777},
            bench={"utterances": 20, "frames": 1500},
            forward=lambda s: Work(
                80 * s["utterances"] * s["frames"],
                80 * s["utterances"] * s["frames"],
                20 * 80 * s["utterances"] * s["frames"],
            ),
            slack=3.0,
            **common,
        ),
    ]

"""Part: batches whose features the device computes, against those that loaders make."""

import dataclasses
import time
import wave
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch

from gpu_check.part_digits import need
from gpu_check.setup import Setup
from gpu_check.syncs import Watch
from gpu_check.timing import stage_times, synchronize

_RATES = (16000, 44100)
_BATCHES = 3


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per kind of features."""
    return {
        f"{kind}, three speeds, noise, SpecAugment": lambda kind=kind: compare(setup, kind)
        for kind in ("fbank", "log-mel")
    }


def compare(setup: Setup, kind: str) -> Dict[str, Any]:
    """Compare batches, count what the host waits for, and time both roads.

    Raises:
      AssertionError: they differ.
    """
    need("lhotse", "soundfile")
    device = torch.device(setup.device)
    usual, loading = _batches(setup, kind, False)
    planned, reading = _batches(setup, kind, True)
    from asr_core.data.device_features import with_inputs_on

    moved = [with_inputs_on(batch, device)["inputs"] for batch in planned]  # filters are made once
    synchronize(setup.device)
    if not setup.small:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with Watch() as watch:
            again = [with_inputs_on(batch, device)["inputs"] for batch in planned]
    finally:
        if not setup.small:
            torch.cuda.set_sync_debug_mode("default")
    errors = [(x.cpu() - y["inputs"]).abs() / (1 + y["inputs"].abs()) for x, y in zip(moved, usual)]
    off = float(torch.cat([(e > 1e-4).float().flatten() for e in errors]).mean())
    frames = sum(int(batch["supervisions"]["num_frames"].sum()) for batch in planned)
    sent = sum(b["inputs"].numel() * 2 + b["plan"].mix.floats.numel() * 4 for b in planned)
    ms = stage_times([lambda: with_inputs_on(planned[0], device)], setup.device)[0]
    row = {
        "largest error": max(float(e.max()) for e in errors),
        "share above 1e-4": off,
        "repeatable": all(torch.equal(x, y) for x, y in zip(moved, again)),
        "audio s": frames / 100,
        "kB per second": sent / frames / 10,
        "loader ms": loading,
        "loader ms, audio only": reading,
        "device ms": ms,
        "waits": watch.total,
        "note": watch.short(_BATCHES),
    }
    # where a filter has next to no energy, two roads round it differently
    if off > 1e-3 or row["largest error"] > 2e-3:
        raise AssertionError(f"features differ: {row}")
    return row


def _batches(setup: Setup, kind: str, on_device: bool) -> Tuple[List[Any], float]:
    """Return the first batches of an epoch, and the ms that a loader process needs for one."""
    from lhotse import CutSet

    from asr_core.data.module import AsrDataModule
    from asr_core.data.options import DataOptions

    folder = _recordings(setup)
    opts = DataOptions(
        on_the_fly_feats=True,
        features_on_device=on_device,
        feature_type=kind,
        max_duration=20 if setup.small else 300,
        num_buckets=2,
        num_workers=0,
        drop_last=False,
        speed_perturb=True,
        noise_manifest=str(folder / "musan_cuts.jsonl.gz"),
    )
    cuts = CutSet.from_file(folder / "made_cuts_train.jsonl.gz")
    batches: List[Any] = []
    began = time.perf_counter()
    for batch in AsrDataModule(dataclasses.replace(opts), seed=1).train_dataloader(cuts, epoch=1):
        batches.append(batch)
        if len(batches) == _BATCHES:
            break
    return batches, 1000 * (time.perf_counter() - began) / len(batches)


def _recordings(setup: Setup) -> Path:
    """Write recordings of noise in 16 bits, some at another rate, and their manifests, once."""
    from lhotse import Recording

    from asr_core.data.manifest import make_cut, write_cuts
    from asr_core.data.noise import noise_windows
    from asr_core.data.preparation_options import NoiseOptions

    folder = setup.work / "loaders"
    if (folder / "musan_cuts.jsonl.gz").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng, cuts = np.random.default_rng(0), []
    for i in range(12 if setup.small else 80):
        rate, seconds = _RATES[i % 4 == 3], 1 + i / 8 if setup.small else 8 + i / 8
        samples = _write(folder / f"u{i}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
        cuts.append(make_cut(f"u{i}", folder / f"u{i}.wav", samples, rate, "one"))
    _write(folder / "noise.wav", 0.2 * rng.standard_normal(60 * _RATES[0]), _RATES[0])
    write_cuts(cuts, folder / "made_cuts_train.jsonl.gz")
    noise = noise_windows(
        [Recording.from_file(folder / "noise.wav")], NoiseOptions(sample_rate=_RATES[0], window=10.0)
    )
    write_cuts(noise, folder / "musan_cuts.jsonl.gz")
    return folder


def _write(path: Path, samples: np.ndarray, rate: int) -> int:
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, rate, 0, "NONE", ""))
        f.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return len(samples)

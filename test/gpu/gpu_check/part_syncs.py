"""Part: where the host waits for the GPU in a step, and what the GPU does meanwhile."""

import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import torch

from gpu_check import train_runs
from gpu_check.model_step import Step
from gpu_check.setup import ROOT, Setup, Skipped
from gpu_check.syncs import Watch
from gpu_check.timing import synchronize

_STEPS = 3


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the two views of a step, and those of train.py."""
    if setup.small:  # there is nothing to wait for, and interpreted steps take minutes
        os.environ["ASR_CORE_TRITON"] = "0"
    return {
        "host synchronisations of a step": lambda: syncs(setup),
        "profile of a step": lambda: profile(setup),
        "host synchronisations of train.py": lambda: syncs_of_training(setup),
    }


def _step(setup: Setup) -> Step:
    step = Step(setup, "medium", torch.bfloat16)
    for _ in range(1 if setup.small else 3):
        step.all()
    synchronize(setup.device)
    return step


def syncs(setup: Setup) -> Dict[str, Any]:
    """Count them by the line of asr_core that causes them."""
    step = _step(setup)
    if not setup.small:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with Watch() as watch:
            for _ in range(_STEPS):
                step.all()
    finally:
        if not setup.small:
            torch.cuda.set_sync_debug_mode("default")
    text = watch.text(_STEPS)
    print(text, flush=True)
    (setup.out / "syncs.txt").write_text("A step of the medium model, without the loop around it\n" + text)
    return {"per step": watch.total / _STEPS, "lines": len(watch.counts), "note": watch.short(_STEPS)}


def syncs_of_training(setup: Setup) -> Dict[str, Any]:
    """Count those of the real loop, with its loader, its checks and its log."""
    place = setup.work / "syncs.json"
    exp_dir, steps = setup.work / "exp-syncs", 3 if setup.small else 20
    usual = train_runs.command(
        setup, exp_dir, steps, "--log-interval", "10", *train_runs.PRECISION["bfloat16"]
    )
    command = [sys.executable, str(Path(__file__).with_name("watched.py")), *usual[1:]]
    train_runs.run(command, train_runs.environment(setup, CHECK_SYNCS=str(place)))
    if not place.exists():
        raise Skipped("the run left no record")
    watch = Watch.read(place)
    text = watch.text(steps)
    print(text, flush=True)
    path = setup.out / "syncs.txt"
    before = path.read_text() + "\n" if path.exists() else ""
    path.write_text(f"{before}train.py, {steps} steps of the digits model\n{text}")
    return {"per step": watch.total / steps, "lines": len(watch.counts), "note": watch.short(steps)}


def profile(setup: Setup) -> Dict[str, Any]:
    """Write the twenty kernels that take most of the time to profile.txt."""
    from torch.profiler import ProfilerActivity, profile, record_function

    step = _step(setup)
    activities = [ProfilerActivity.CPU, *([] if setup.small else [ProfilerActivity.CUDA])]
    with profile(activities=activities) as found:
        for _ in range(_STEPS):
            for name, stage in zip(("forward", "backward", "optimizer"), step.stages):
                with record_function(f"## {name}"):
                    stage()
        synchronize(setup.device)
    table, averages = "", found.key_averages()
    for key in ("self_device_time_total", "self_cuda_time_total", "self_cpu_time_total"):
        try:
            table = averages.table(sort_by=key, row_limit=20, max_name_column_width=90)
            break
        except (AttributeError, AssertionError, KeyError) as e:
            print(f"no table by {key}: {e}", flush=True)
    kernels = _kernels(averages)
    lines = [f"{ms / _STEPS:9.3f} ms {count / _STEPS:8.1f} x  {name}" for name, ms, count in kernels[:40]]
    head = f"{_STEPS} steps of the medium model, bfloat16, commit at {ROOT.name}\n"
    text = f"{head}\nKernels of a step by their time\n" + "\n".join(lines) + f"\n\n{table}\n"
    (setup.out / "profile.txt").write_text(text)
    return {
        "GPU ms per step": sum(ms for _, ms, _ in kernels) / _STEPS,
        "kernels per step": sum(count for _, _, count in kernels) / _STEPS,
        "note": "; ".join(f"{name[:40]} {ms / _STEPS:.2f} ms" for name, ms, _ in kernels[:5]),
    }


def _kernels(averages: Any) -> Any:
    """Return (name, milliseconds, count) of what ran on the GPU, the longest first."""
    rows = []
    for event in averages:
        if "CUDA" not in str(getattr(event, "device_type", "")):
            continue
        us = getattr(event, "self_device_time_total", getattr(event, "self_cuda_time_total", 0.0))
        if us and not event.key.startswith("## "):
            rows.append((event.key, us / 1000, event.count))
    return sorted(rows, key=lambda row: -row[1])

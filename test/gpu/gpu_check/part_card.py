"""Part: which card, driver and versions; what copies and matrix products reach."""

import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from typing import Any, Callable, Dict

import torch

from asr_core.ops import swoosh
from gpu_check.launches import counted
from gpu_check.roofline import peak_of
from gpu_check.setup import ROOT, Setup
from gpu_check.timing import stage_times, synchronize

_PACKAGES = "torch triton numpy numba scipy lhotse sentencepiece kaldialign soundfile torchaudio k2".split()


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the facts, and the rates that are measured."""
    found: Dict[str, Callable[[], Dict[str, Any]]] = {
        "versions": versions,
        "card": lambda: card(setup),
        "first kernel": lambda: first_kernel(setup),
        "copy": lambda: copy(setup),
    }
    for name in ("float32", "tf32", "bfloat16", "float16"):
        if not (setup.small and name in ("tf32", "float16")):
            found[f"matrix product, {name}"] = lambda name=name: product(setup, name)
    return found


def versions() -> Dict[str, Any]:
    """Return the versions of what takes part."""
    found = {"python": platform.python_version(), "CUDA": str(torch.version.cuda)}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return {"note": ", ".join(f"{k} {v}" for k, v in found.items()) + f"; commit {commit}; {sys.executable}"}


def card(setup: Setup) -> Dict[str, Any]:
    """Return the card, its driver and what it has."""
    if setup.small:
        return {"note": f"no card: {platform.processor() or platform.machine()}"}
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    facts = _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    prop = torch.cuda.get_device_properties(0)
    note = f"{facts}; {prop.multi_processor_count} multiprocessors, compute {prop.major}.{prop.minor}"
    return {"note": f"{note}; {torch.cuda.device_count()} cards; rates of {peak_of(prop.name)}"}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"({command[0]}: {e})"
    return done.stdout.strip()


def first_kernel(setup: Setup) -> Dict[str, Any]:
    """Compile and start a kernel, for which Triton needs a C compiler; return how long that takes."""
    x = torch.randn(1000, device=setup.device)
    began = time.perf_counter()
    with counted() as launches:
        swoosh.swoosh_l(x)
        synchronize(setup.device)
    row = {"ms": 1000 * (time.perf_counter() - began)}
    if not launches:
        return {"ok": False, **row, "note": "no Triton kernel ran: is triton installed?"}
    return {
        **row,
        "note": f"C compiler: {shutil.which('gcc') or shutil.which('cc') or shutil.which('clang')}",
    }


def copy(setup: Setup) -> Dict[str, Any]:
    """Return the speed of a large copy within the device, bytes read plus bytes written."""
    x = torch.randn((1 << 16) if setup.small else (1 << 29), device=setup.device)
    y = torch.empty_like(x)
    (ms,) = stage_times([lambda: y.copy_(x)], setup.device, flush=False)
    return {"GB/s": 2 * x.numel() * 4 / ms / 1e6, "ms": ms}


def product(setup: Setup, name: str) -> Dict[str, Any]:
    """Return the speed of a large matrix product of random numbers."""
    size = 128 if setup.small else 8192
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    a, b = (torch.randn(size, size, device=setup.device, dtype=dtype) for _ in range(2))
    (ms,) = stage_times([lambda: a @ b], setup.device, flush=False)
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"TFLOP/s": 2 * size**3 / ms / 1e9, "ms": ms}

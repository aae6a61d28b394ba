"""Part: a training step of three sizes, with the kernels and in plain eager torch."""

import functools
import gc
import time
from typing import Any, Callable, Dict, List, Optional

import torch
from torch.utils.flop_counter import FlopCounterMode

from gpu_check.launches import counted, kernels_off
from gpu_check.model_step import Step
from gpu_check.roofline import H100, peak_of
from gpu_check.setup import Setup
from gpu_check.timing import stage_times, synchronize

# The most important first.
_RUNS = (
    ("medium", "bfloat16"),
    ("small", "bfloat16"),
    ("large", "bfloat16"),
    ("medium", "float16"),
    ("medium", "float32"),
)


def items(setup: Setup, which: str) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per size and type: the first, or the others."""
    runs = _RUNS[:1] if which == "first" else _RUNS[1:]
    if setup.small and which == "others":
        runs = (("medium", "float32"),)
    return {f"{size}, {dtype}": functools.partial(measure, setup, size, dtype) for size, dtype in runs}


def measure(setup: Setup, size: str, dtype: str) -> Dict[str, Any]:
    """Time a step with the kernels, then without them; their first losses must agree."""
    autocast = None if dtype == "float32" else getattr(torch, dtype)
    peak = H100 if setup.small else peak_of(torch.cuda.get_device_name())
    step = Step(setup, size, autocast)
    row: Dict[str, Any] = {"audio s": step.batch.seconds}
    row["parameters"] = sum(p.numel() for p in step.model.parameters())
    row.update(_timed(setup, step))
    row["audio s/s"] = step.batch.seconds / row["step ms"] * 1000
    loss, flops, apart = step.first_loss, None, 0.0
    del step  # and its memory
    gc.collect()
    try:
        with kernels_off():
            step = Step(setup, size, autocast)  # the optimizer chooses its kernels when it is made
            plain = _timed(setup, step, rounds=4)
            flops = _flops(step)
        row.update({f"plain {name}": plain[name] for name in ("step ms", "optimizer ms", "GB")})
        row["faster than plain by"] = plain["step ms"] / row["step ms"]
        apart = abs(step.first_loss - loss) / abs(loss)
    except torch.cuda.OutOfMemoryError:
        row["note"] = "plain eager torch runs out of memory"
    if flops:
        row["TFLOP"] = flops / 1e12
        row["MFU"] = flops / row["step ms"] * 1000 / (peak.matrix(dtype) * 1e12)
    row["loss apart"] = apart
    if not apart < 0.05:
        return {"ok": False, **row, "note": f"the loss without kernels differs by {apart:.1%}"}
    return row


def _timed(setup: Setup, step: Step, rounds: int = 8) -> Dict[str, Any]:
    """Return the milliseconds of a step and its stages, and its peak memory in GB."""
    for _ in range(1 if setup.small else 3):
        step.all()  # compiles kernels, takes memory
        step.first_loss = step.first_loss or float(step.loss.detach())
    if not setup.small:
        torch.cuda.reset_peak_memory_stats()
    with counted() as launches:
        step.all()
    synchronize(setup.device)
    walls: List[float] = []
    hosts: List[float] = []
    for _ in range(1 if setup.small else rounds):
        began = time.perf_counter()
        step.all()
        hosts.append(time.perf_counter() - began)
        synchronize(setup.device)
        walls.append(time.perf_counter() - began)
    peak = 0.0 if setup.small else torch.cuda.max_memory_allocated() / 1e9
    parts = stage_times(step.stages, setup.device, seconds=0.5, most=rounds, flush=False)
    total = sum(parts)
    return {
        "step ms": 1000 * sorted(walls)[len(walls) // 2],
        "host ms": 1000 * sorted(hosts)[len(hosts) // 2],
        "forward ms": parts[0],
        "backward ms": parts[1],
        "optimizer ms": parts[2],
        "optimizer share": parts[2] / total,
        "GB": peak,
        "Triton launches": sum(launches.values()),
    }


def _flops(step: Step) -> Optional[float]:
    """Return the operations of the matrix products and convolutions of a step's two passes.

    They are counted in the plain form, whose operations torch knows.
    """
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            step.forward()
            step.backward()
    except Exception as e:  # a figure less, but the times are there
        print(f"operations were not counted: {e}", flush=True)
        return None
    finally:
        step.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())

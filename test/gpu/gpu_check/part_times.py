"""Part: how long kernels take, beside their plain torch forms and what the card could do at best."""

import functools
from typing import Any, Callable, Dict, List, Sequence

import torch

from gpu_check import cases as c
from gpu_check.launches import counted, kernels_off
from gpu_check.parts import FAMILIES
from gpu_check.roofline import H100, cases_of, floor_ms, peak_of
from gpu_check.setup import Setup
from gpu_check.timing import stage_times, synchronize

_SECONDS = 0.25  # of each form of a case


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per case; of a family that cannot be had here, one that says so."""
    found: Dict[str, Callable[[], Dict[str, Any]]] = {}
    for family in FAMILIES:
        try:
            cases = cases_of(family)
        except ModuleNotFoundError:
            found[family] = functools.partial(cases_of, family)
            continue
        found.update({case.name: functools.partial(measure, setup, case) for case in cases})
    return found


def measure(setup: Setup, case: c.Case) -> Dict[str, Any]:
    """Time a case in both directions, the kernels and the plain form in turns."""
    sizes = case.tiny if setup.small else case.bench
    peak = H100 if setup.small else peak_of(torch.cuda.get_device_name())
    args = case.make(c.Draw(getattr(torch, case.bench_dtype), setup.device), sizes)
    stages = _stages(case, args)
    with counted() as launches:
        for stage in stages:
            stage()
    ours = stage_times(stages, setup.device, _SECONDS)
    with kernels_off():
        plain = stage_times(_stages(case, args), setup.device, _SECONDS)
    memory = {"MB": _peak_memory(stages, setup), "sizes": _text(sizes), "type": case.bench_dtype}
    row: Dict[str, Any] = {"launches": sum(launches.values())}
    for i, (direction, of) in enumerate((("forward", case.forward), ("backward", case.backward))):
        if i >= len(ours) or of is None:
            continue
        work = of(sizes)
        best = floor_ms(work, case.bench_dtype, peak)
        row[f"{direction} ms"] = ours[i]
        row[f"plain {direction} ms"] = plain[i]
        if best > 0:
            row[f"best {direction} ms"] = best
            row[f"{direction} / best"] = ours[i] / best
            row[f"{direction} GB/s"] = work.bytes(args_itemsize(case)) / ours[i] / 1e6
    total, other = sum(ours), sum(plain)
    return {**row, "faster than plain by": other / total, **memory}


def args_itemsize(case: c.Case) -> int:
    """Return the bytes of an element of a case."""
    return torch.empty((), dtype=getattr(torch, case.bench_dtype)).element_size()


def _stages(case: c.Case, args: Sequence[Any]) -> List[Callable[[], Any]]:
    """Return the forward pass, and the backward pass where there is one, as stages."""
    if case.stages is not None:
        return case.stages(args)
    function = case.ours
    inputs = c.differentiable(args)
    kept: Dict[str, Any] = {}
    probe = c.with_gradient(function(*args))
    directions = [torch.randn_like(y) for y in probe]

    def forward() -> None:
        kept["ends"] = c.with_gradient(function(*args))

    def backward() -> None:
        kept["grads"] = torch.autograd.grad(kept.pop("ends"), inputs, directions, allow_unused=True)

    return [forward, backward] if inputs and probe else [lambda: function(*args)]


def _peak_memory(stages: Sequence[Callable[[], Any]], setup: Setup) -> float:
    """Return the MB that one pass in both directions adds at its peak."""
    if setup.small:
        return 0.0
    synchronize(setup.device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for stage in stages:
        stage()
    synchronize(setup.device)
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _text(sizes: c.Sizes) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())

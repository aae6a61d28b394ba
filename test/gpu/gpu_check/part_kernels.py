"""Part: kernels give what their formulas give in float64, in both directions."""

import contextlib
import functools
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from gpu_check import cases as c
from gpu_check.launches import counted, kernels_off
from gpu_check.roofline import cases_of
from gpu_check.setup import Setup


def items(setup: Setup, family: str) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per case and type."""
    return {
        f"{case.name}, {dtype}": functools.partial(check, setup, case, dtype)
        for case in cases_of(family)
        for dtype in case.dtypes
    }


def check(setup: Setup, case: c.Case, dtype: str) -> Dict[str, Any]:
    """Compare a case with its formula, on sizes that are odd; raise if it differs."""
    sizes = case.tiny if setup.small else case.odd
    torch.backends.cudnn.allow_tf32 = False
    with counted() as forward_launches, exposing_unwritten():
        got, args = _run(case, sizes, dtype, setup.device)
    again, _ = _run(case, sizes, dtype, setup.device)
    with kernels_off():
        want = _reference(case, args, got)
    tolerance = c.tolerance(case, dtype)
    worst = {name: _error(got[name], want[name]) for name in got}
    name, error = max(worst.items(), key=lambda pair: pair[1])
    row = {
        "error": error,
        "of": name,
        "tolerance": tolerance,
        "launches": sum(forward_launches.values()),
        "repeatable": all(torch.equal(got[n], again[n]) for n in got),
        "sizes": ", ".join(f"{n} {size}" for n, size in sizes.items()),
    }
    if case.must and not forward_launches:
        return {"ok": False, **row, "note": "no Triton kernel ran: the plain form took its place"}
    if not error <= tolerance:
        return {"ok": False, **row, "note": f"differs: { ({n: f'{e:.1e}' for n, e in worst.items()}) }"}
    return {**row, "note": case.note}


def _run(case: c.Case, sizes: c.Sizes, dtype: str, device: str) -> Tuple[Dict[str, Tensor], Sequence[Any]]:
    """Return results and gradients by name, and the arguments they were computed from."""
    draw = c.Draw(getattr(torch, dtype), device)
    args = case.make(draw, sizes)
    outputs = case.ours(*args)
    return _named(case, outputs, args, draw), args


def _reference(case: c.Case, args: Sequence[Any], got: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Return the same by the plain form in float64 on the CPU."""
    doubled = c.exact(args)
    outputs = case.plain(*doubled)
    found = {f"result {i}": y.detach() for i, y in enumerate(c.tensors(outputs))}
    inputs, ends = c.differentiable(doubled), c.with_gradient(outputs)
    if inputs and ends:
        directions = [got[f"direction {i}"].cpu().double() for i in range(len(ends))]
        grads = torch.autograd.grad(ends, inputs, directions, allow_unused=True)
        found.update({f"gradient {i}": g for i, g in enumerate(grads) if g is not None})
    return {**{name: x for name, x in got.items() if name.startswith("direction")}, **found}


def _named(case: c.Case, outputs: c.Outputs, args: Sequence[Any], draw: c.Draw) -> Dict[str, Tensor]:
    found = {f"result {i}": y.detach() for i, y in enumerate(c.tensors(outputs))}
    inputs, ends = c.differentiable(args), c.with_gradient(outputs)
    if inputs and ends:
        directions = c.cotangents(ends, draw)
        grads = torch.autograd.grad(ends, inputs, directions, allow_unused=True)
        found.update({f"direction {i}": g for i, g in enumerate(directions)})
        found.update({f"gradient {i}": g for i, g in enumerate(grads) if g is not None})
    return found


def _error(got: Tensor, want: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite where a number is not."""
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    if got.shape != want.shape:
        raise AssertionError(f"shape {tuple(got.shape)} instead of {tuple(want.shape)}")
    if got.numel() == 0:
        return 0.0
    same = (got == want) | (got.isnan() & want.isnan())
    difference = torch.where(same, 0.0, (got - want).abs())
    if not bool(torch.isfinite(difference).all()):
        return float("inf")
    finite = want[torch.isfinite(want)]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return float(difference.max()) / max(scale, 1e-30)


@contextlib.contextmanager
def exposing_unwritten() -> Iterator[None]:
    """Fill new tensors with NaN, so that elements which no kernel writes are seen."""
    before: List[bool] = [
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    ]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

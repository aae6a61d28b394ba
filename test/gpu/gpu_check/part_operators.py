"""Part: torch.compile sees our operators as nodes, and what it makes of a model computes the same."""

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from asr_core.ops import rnnt_loss as rnnt
from asr_core.ops import swoosh
from gpu_check import train_runs
from gpu_check.launches import kernels_off
from gpu_check.setup import Setup, Skipped
from gpu_check.windows import MOST_APART, windows_apart

_COMPILE_SECONDS = 80.0


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return what is compiled."""
    return {
        "an operator among others": lambda: operator(setup),
        "transducer losses": lambda: losses(setup),
        "train.py --compile 1, Conformer": lambda: compiled_training(setup, "conformer"),
        "train.py --compile 1, Zipformer": lambda: compiled_training(setup, "zipformer"),
    }


def operator(setup: Setup) -> Dict[str, Any]:
    """Compile a function that contains one, and compare it with the function itself."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return swoosh.swoosh_r(x * 2 + 1) * 3

    backend = "aot_eager" if setup.small else "inductor"
    x = torch.randn(63, 129, device=setup.device, requires_grad=True)
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    return _compare(function, compiled, [x], 1e-5)


def _compare(function: Any, compiled: Any, inputs: List[Tensor], tolerance: float) -> Dict[str, Any]:
    """Compare result and gradients of a compiled function with its plain form."""
    found = _with_gradients(compiled, inputs)
    with kernels_off():
        want = _with_gradients(function, inputs)
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, want))
    if not error < tolerance:
        raise AssertionError(f"differs by {error:.1e}")
    return {"error": error}


def _with_gradients(function: Any, inputs: List[Tensor]) -> List[Tensor]:
    result = function(*inputs)
    return [result.detach(), *torch.autograd.grad(result.sum(), inputs)]


def losses(setup: Setup) -> Dict[str, Any]:
    """Compile simple and pruned loss with all that is between them, as one graph."""
    torch.manual_seed(0)
    n, t, u, v = (2, 7, 3, 6) if setup.small else (3, 61, 13, 77)
    boundary = torch.tensor([[0, 0, u, t - 2 * i] for i in range(n)], device=setup.device)
    symbols = torch.randint(1, v, (n, u), device=setup.device)
    am, lm = (torch.randn(n, k, v, device=setup.device, requires_grad=True) for k in (t, u + 1))
    chosen: List[Tensor] = []

    def both(am: Tensor, lm: Tensor, windows: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        simple, counts = rnnt.rnnt_loss_smoothed(lm, am, symbols, 0, boundary=boundary, return_grad=True)
        own = rnnt.get_rnnt_prune_ranges(*counts, boundary, 3)
        ranges = own if windows is None else windows
        of_am, of_lm = rnnt.do_rnnt_pruning(am, lm, ranges)
        return simple + rnnt.rnnt_loss_pruned(of_am + of_lm, symbols, ranges, 0, boundary), own

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager" if setup.small else "inductor")
    with kernels_off():
        _, windows = both(am, lm, None)  # the same for all: they may tie

    def function(am: Tensor, lm: Tensor) -> Tensor:
        return both(am, lm, windows)[0]

    def graph(am: Tensor, lm: Tensor) -> Tensor:
        loss, own = compiled(am, lm, windows)
        chosen.append(own)
        return loss

    row = _compare(function, graph, [am, lm], 1e-4)
    row["windows apart"] = windows_apart(chosen[0], windows)
    if not row["windows apart"] <= MOST_APART:
        raise AssertionError(f"{row['windows apart']:.0%} of the windows differ")
    return row


def compiled_training(setup: Setup, model: str) -> Dict[str, Any]:
    """Train with ``--compile 1``; left out if compilation, which is not ours, takes too long."""
    if setup.small:
        raise Skipped("takes minutes on the CPU")
    exp_dir, steps = setup.work / f"exp-compiled-{model}", 12
    options = ["--model", model, "--compile", "1", "--use-bf16", "1", "--save-every-n", str(steps)]
    command = train_runs.command(setup, exp_dir, steps, *options)
    try:
        train_runs.run(command, train_runs.environment(setup), _COMPILE_SECONDS)
    except TimeoutError as e:
        raise Skipped(f"did not end in {_COMPILE_SECONDS:.0f} s: {e}") from e
    return train_runs.falling(train_runs.losses(exp_dir), steps, 1.05)

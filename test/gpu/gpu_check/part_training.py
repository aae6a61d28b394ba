"""Part: the digits model learns in each precision, and a stopped run goes on as if it had not been."""

from typing import Any, Callable, Dict

from gpu_check import train_runs
from gpu_check.setup import Setup, Skipped


def items(setup: Setup, dtype: str) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the whole run, and the one that is stopped in the middle."""
    return {"whole run": lambda: whole(setup, dtype), "stopped and resumed": lambda: resumed(setup, dtype)}


def _steps(setup: Setup) -> int:
    return 6 if setup.small else 50


def _train(setup: Setup, dtype: str, name: str, steps: int) -> Any:
    if setup.small and dtype == "float16":
        raise Skipped("float16 trains on GPUs alone")
    exp_dir = setup.work / f"exp-{dtype}-{name}"
    options = ["--save-every-n", str(_steps(setup) // 2), *train_runs.PRECISION[dtype]]
    train_runs.run(train_runs.command(setup, exp_dir, steps, *options), train_runs.environment(setup))
    return exp_dir


def whole(setup: Setup, dtype: str) -> Dict[str, Any]:
    """Train without interruption; the loss falls."""
    steps = _steps(setup)
    exp_dir = _train(setup, dtype, "whole", steps)
    return train_runs.falling(train_runs.losses(exp_dir), steps, 1.0 if setup.small else 0.7)


def resumed(setup: Setup, dtype: str) -> Dict[str, Any]:
    """Train half of the steps, then the rest in another process; compare with the whole run."""
    steps = _steps(setup)
    _train(setup, dtype, "parts", steps // 2)
    exp_dir = _train(setup, dtype, "parts", steps)
    whole_dir = setup.work / f"exp-{dtype}-whole"
    want, got = train_runs.losses(whole_dir), train_runs.losses(exp_dir)
    apart = {i: abs(got[i]["loss"] - want[i]["loss"]) / abs(want[i]["loss"]) for i in want}
    last = f"checkpoint-{steps}.pt"
    difference = train_runs.largest_difference(whole_dir / last, exp_dir / last)
    half = f"checkpoint-{steps // 2}.pt"
    at_stop = train_runs.largest_difference(whole_dir / half, exp_dir / half)
    before = max(apart[i] for i in range(1, steps // 2 + 1))
    row = {
        "losses before the stop": before,
        "weights at the stop": at_stop,
        "first step after it": apart[steps // 2 + 1],
        "last step": apart[steps],
        "weights": difference,
        "bit-equal": difference == 0.0,
    }
    # Two runs of one command may differ where sums are added up in any order; a resumed one must
    # not differ more.
    if at_stop == 0.0 and difference != 0.0:
        raise AssertionError(f"equal up to the stop, but not after it: {row}")
    if not apart[steps // 2 + 1] < max(1e-3, 10 * before):
        raise AssertionError(f"the first step after the stop differs: {row}")
    return row

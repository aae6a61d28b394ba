"""Part: seconds of audio decoded per second, by model, method and type."""

from typing import Any, Callable, Dict

from gpu_check.setup import ROOT, Setup, Skipped

PROGRAM = ROOT / "test/bench/bench_rtfx.py"


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item."""
    return {"bench_rtfx": lambda: rtfx(setup)}


def rtfx(setup: Setup) -> Dict[str, Any]:
    """Run the benchmark of decoding."""
    if not PROGRAM.exists():
        raise Skipped(f"there is no {PROGRAM.name} yet")
    raise Skipped("not connected yet")

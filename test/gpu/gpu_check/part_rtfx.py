"""Part: seconds of audio decoded per second, by model, method and type."""

import functools
from typing import Any, Callable, Dict

import bench_rtfx

from gpu_check.setup import Setup

_ALL = "greedy_search,modified_beam_search,fast_beam_search,ctc-greedy-search"


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per model and type."""
    models = [
        ("medium", "bfloat16", _ALL),
        ("medium", "float32", _ALL),
        ("medium", "float16", "greedy_search"),
    ]
    models += [(size, "bfloat16", "greedy_search") for size in ("small", "large")]
    if setup.small:
        models = [("tiny", "float32", "greedy_search")]
    return {f"{m[0]} {m[1]}": functools.partial(rtfx, setup, *m) for m in models}


def rtfx(setup: Setup, model: str, dtype: str, methods: str) -> Dict[str, Any]:
    """Run the benchmark of decoding; return RTFx by method."""
    size = ["--seconds", "6", "--vocab-size", "20"] if setup.small else ["--seconds", "3600"]
    longest = "6" if setup.small else "1800"
    out = setup.work / f"rtfx-{model}-{dtype}"
    options = ["--models", model, "--dtypes", dtype, "--methods", methods, "--device", setup.device]
    rows = bench_rtfx.main([*options, *size, "--max-durations", longest, "--out", str(out)])
    found = {row["method"]: row["rtfx"] for row in rows}
    return {**found, "GiB": max(row.get("memory", 0.0) for row in rows)}

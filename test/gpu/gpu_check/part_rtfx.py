"""Part: seconds of audio decoded per second, by model, method and type."""

import functools
from typing import Any, Callable, Dict

import bench_rtfx

from gpu_check.setup import Setup

_GREEDY = "greedy_search"
_OTHERS = ("modified_beam_search", "fast_beam_search", "ctc-greedy-search", "ctc-prefix-beam-search")
_FUSED = (
    "modified_beam_search_lm_shallow_fusion",
    "modified_beam_search_LODR",
    "ctc-prefix-beam-search-shallow-fusion",
    "fast_beam_search_LG",
)
_RUNS = (  # the most important first
    ("medium", "bfloat16", _GREEDY),
    *(("medium", "bfloat16", method) for method in _OTHERS),
    ("small", "bfloat16", _GREEDY),
    ("large", "bfloat16", _GREEDY),
    ("medium", "float16", _GREEDY),
    *(("medium", "bfloat16", method) for method in _FUSED),
    ("medium", "float32", ",".join((_GREEDY, _OTHERS[0]))),
)


def items(setup: Setup, which: str) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per model, type and method: the first, or the others."""
    runs = _RUNS[:1] if which == "first" else _RUNS[1:]
    if setup.small:
        runs = (("tiny", "float32", _GREEDY if which == "first" else _FUSED[-1]),)
    return {f"{size} {dtype}, {m}": functools.partial(rtfx, setup, size, dtype, m) for size, dtype, m in runs}


def rtfx(setup: Setup, model: str, dtype: str, methods: str) -> Dict[str, Any]:
    """Run the benchmark of decoding; return the RTFx of each method with the better batch size."""
    seconds, longest = ("3600", "600,1800") if methods == _GREEDY else ("1200", "600")
    if setup.small:
        seconds, longest = "2", "6"
    size = ["--seconds", seconds, "--vocab-size", "20" if setup.small else "500"]
    out = setup.work / f"rtfx-{model}-{dtype}-{methods.split(',')[0]}"
    options = ["--models", model, "--dtypes", dtype, "--methods", methods, "--device", setup.device]
    rows = bench_rtfx.main([*options, *size, "--max-durations", longest, "--out", str(out)])
    found: Dict[str, Any] = {}
    for row in rows:
        found[row["method"]] = max(row["rtfx"], found.get(row["method"], 0.0))
    each = [f"{r['method']} {r['rtfx']:.0f} in batches of {r['max_duration']:.0f} s" for r in rows[1:]]
    return {**found, "GiB": max(row.get("memory", 0.0) for row in rows), "note": "; ".join(each)}

"""Runs of the digits recipe's train.py, and what they wrote."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from gpu_check.part_digits import RECIPE, data_options
from gpu_check.setup import Setup

PRECISION = {"float32": [], "bfloat16": ["--use-bf16", "1"], "float16": ["--use-fp16", "1"]}


def command(setup: Setup, exp_dir: Path, steps: int, *options: str) -> List[str]:
    """Return the command that trains for ``steps`` steps, with a record of each."""
    usual = {
        "exp-dir": exp_dir,
        "max-steps": steps,
        "num-epochs": 1000,
        "max-duration": 10 if setup.small else 100,
        "log-interval": 1,
        "average-period": 1 if setup.small else 5,
        "keep-last-k": 3,
        "valid-interval": 100000,
        "valid-wer-interval": 0,
        "tensorboard": 0,
        "num-workers": 0 if setup.small else 2,
        "scan-for-oom": 0,
        "device": setup.device,
        "num-threads": 1 if setup.small else 4,
    }
    flags = [text for name, value in usual.items() for text in (f"--{name}", str(value))]
    return [sys.executable, str(RECIPE / "train.py"), *flags, *data_options(setup), *options]


def environment(setup: Setup, **more: str) -> Dict[str, str]:
    """Return the environment of a training; the rehearsal's kernels would take hours."""
    usual = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "MPLBACKEND": "agg"}
    return {**usual, **({"ASR_CORE_TRITON": "0"} if setup.small else {}), **more}


def run(arguments: Sequence[str], env: Mapping[str, str], seconds: float = 600.0) -> None:
    """Run a program; its output goes to the log of the part line by line, lest it be lost.

    Raises:
      TimeoutError: it took more than ``seconds``.
      RuntimeError: it failed.
    """
    print("$", " ".join(arguments), flush=True)
    began, last = time.monotonic(), deque(maxlen=8)
    with subprocess.Popen(
        arguments,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            last.append(line)
    timer.cancel()
    if child.returncode:
        tail = " ".join("".join(last)[-400:].split())
        kind = RuntimeError if time.monotonic() - began < seconds else TimeoutError
        raise kind(f"status {child.returncode}: {tail}")


def losses(exp_dir: Path) -> Dict[int, Dict[str, Any]]:
    """Return the records of the steps of a run, by their number."""
    lines = (exp_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {r["batch_idx_train"]: r for r in records if r["type"] == "train"}


def falling(found: Mapping[int, Mapping[str, Any]], steps: int, factor: float) -> Dict[str, Any]:
    """Return the loss at the beginning and the end; raise unless it fell to ``factor`` of it."""
    if set(found) != set(range(1, steps + 1)):
        raise AssertionError(f"recorded steps: {sorted(found)} instead of 1 to {steps}")
    count = max(1, steps // 10)
    values = [found[i]["loss"] for i in range(1, steps + 1)]
    first, last = sum(values[:count]) / count, sum(values[-count:]) / count
    row = {"loss at first": first, "at last": last, "rate": found[steps].get("rate")}
    if not last < factor * first:
        raise AssertionError(f"the loss went from {first:.4g} to {last:.4g}")
    return row


def largest_difference(a: Path, b: Path) -> Optional[float]:
    """Return the largest difference of the weights in two checkpoints."""
    import torch

    one, other = (torch.load(p, map_location="cpu", weights_only=False)["model"] for p in (a, b))
    if set(one) != set(other):
        raise AssertionError("the checkpoints have different weights")
    return max(float((one[n].double() - other[n].double()).abs().max()) for n in one if one[n].numel())

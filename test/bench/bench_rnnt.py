"""Pruned RNN-T loss, forward and backward: the back ends of asr_core against each other and against
k2.

    python test/bench/bench_rnnt.py [--k2-python /path/to/python-with-k2]

Timed: smoothed loss with occupation counts, pruning windows, pruning, logits = tanh(am + lm),
pruned loss, backward to am and lm (no joiner). Every program runs in a process of its own, in
turns, so that a busy machine is busy for all; each one's losses, windows and gradients are compared
before anything is timed. asr_core's processes call ``keep_memory()`` as its programs do; k2 runs in
the plain environment and in one tuned for AMD processors and for large tensors (``TUNED``).
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TUNED = {
    "MKL_DEBUG_CPU_TYPE": "5",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
PARTS = ("smoothed", "windows", "pruning", "tanh", "pruned", "backward", "total")


def functions(program):
    """The six functions of ``program``: "k2" or one of asr_core's back ends."""
    if program == "k2":
        import k2

        return k2, {}
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from asr_core.ops import rnnt_loss
    from asr_core.utils.runtime import keep_memory

    keep_memory()
    return rnnt_loss, {"backend": program}


def step(module, options, am, lm, symbols, boundary, s_range, given_ranges=None):
    """One forward and backward; returns the losses, the windows and the milliseconds of each of
    PARTS.
    """
    import torch

    clock = [time.perf_counter()]
    am.grad = lm.grad = None
    simple, (px_grad, py_grad) = module.rnnt_loss_smoothed(
        lm, am, symbols, 0, 0.25, 0.0, boundary=boundary, reduction="sum", return_grad=True, **options
    )
    clock.append(time.perf_counter())
    ranges = module.get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range, **options)
    clock.append(time.perf_counter())
    used = ranges if given_ranges is None else given_ranges
    am_pruned, lm_pruned = module.do_rnnt_pruning(am, lm, used, **options)
    clock.append(time.perf_counter())
    logits = torch.tanh(am_pruned + lm_pruned)
    clock.append(time.perf_counter())
    pruned = module.rnnt_loss_pruned(logits, symbols, used, 0, boundary=boundary, reduction="sum", **options)
    clock.append(time.perf_counter())
    (0.5 * simple + pruned).backward()
    clock.append(time.perf_counter())
    parts = [1000 * (b - a) for a, b in zip(clock, clock[1:])]
    return simple.item(), pruned.item(), ranges, [*parts, sum(parts)]


def work(program, folder, repeats, threads):
    """Run one process: write check values to a file, times to standard output."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    module, options = functions(program)
    given = np.load(folder / "inputs.npz")
    am, lm = (torch.from_numpy(given[name]).requires_grad_() for name in ("am", "lm"))
    symbols, boundary = torch.from_numpy(given["symbols"]), torch.from_numpy(given["boundary"])
    common = (module, options, am, lm, symbols, boundary, int(given["s_range"]))
    # windows may differ where several hold everything; gradients are compared on the same ones
    common_ranges = folder / "ranges.npy"
    ranges = step(*common)[2]
    if not common_ranges.exists():
        np.save(common_ranges, ranges.numpy())
    simple, pruned, _, _ = step(*common, given_ranges=torch.from_numpy(np.load(common_ranges)))
    np.savez(
        folder / f"{program}.npz",
        ranges=ranges.numpy(),
        losses=[simple, pruned],
        am_grad=am.grad.numpy(),
        lm_grad=lm.grad.numpy(),
    )
    step(*common)
    print(json.dumps([step(*common)[3] for _ in range(repeats)]))


def check(folder, program, reference):
    """Stop unless both programs computed the same; returns the share of equal windows."""
    import numpy as np

    one, other = np.load(folder / f"{program}.npz"), np.load(folder / f"{reference}.npz")
    for name in ("losses", "am_grad", "lm_grad"):
        error = np.abs(one[name] - other[name]).max() / np.abs(other[name]).max()
        if not error < 1e-4:
            raise SystemExit(f"{program} and {reference} differ in {name}: {error:.1e}")
    equal = float((one["ranges"] == other["ranges"]).mean())
    if equal < 0.99:
        raise SystemExit(f"{program} and {reference} differ in {1 - equal:.1%} of the windows")
    return equal


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k2-python", help="a Python interpreter that imports torch and k2")
    parser.add_argument(
        "--shape", default="8,250,50,500,5", help="batch, frames, symbols, vocabulary, window"
    )
    parser.add_argument("--repeats", type=int, default=10, help="timed steps per process")
    parser.add_argument("--rounds", type=int, default=3, help="processes per program, in turns")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", nargs=2, metavar=("PROGRAM", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_inputs(folder, shape):
    import numpy as np

    batch, frames, num, columns, s_range = (int(x) for x in shape.split(","))
    random = np.random.default_rng(0)
    am, lm = (
        random.standard_normal((batch, length, columns), dtype=np.float32) for length in (frames, num + 1)
    )
    symbols = random.integers(1, columns, (batch, num))
    boundary = np.tile([0, 0, num, frames], (batch, 1))
    np.savez(folder / "inputs.npz", am=am, lm=lm, symbols=symbols, boundary=boundary, s_range=s_range)


def machine():
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        model = next(
            (
                x.split(":")[1].strip()
                for x in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in x
            ),
            model,
        )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"


def main():
    args = arguments()
    if args.work:
        work(args.work[0], Path(args.work[1]), args.repeats, args.threads)
        return
    rows = [("asr_core numba", "numba", sys.executable, {}), ("asr_core torch", "torch", sys.executable, {})]
    if args.k2_python:
        rows += [
            ("k2, plain environment", "k2", args.k2_python, {}),
            ("k2, tuned environment", "k2", args.k2_python, TUNED),
        ]
    times = {name: [] for name, *_ in rows}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), args.shape)
        for turn in range(args.rounds):
            for name, program, python, extra in rows:
                options = ["--repeats", str(args.repeats), "--threads", str(args.threads)]
                command = [python, __file__, "--work", program, folder, *options]
                environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), **extra}
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                times[name] += json.loads(run.stdout.splitlines()[-1])
                equal = check(Path(folder), program, "numba")
                if turn == 0 and program != "numba":
                    print(f"{name} computes the same as asr_core numba; {equal:.2%} of the windows are equal")
    print(
        f"\n(B, T, S, V, range) = ({args.shape}), {args.threads} threads, {machine()}, {datetime.date.today()}"
    )
    print(f"median [min, max] of {args.rounds} x {args.repeats} steps in ms; then the medians of the parts\n")
    print(f"| {'':22} | {'total':24} | {' | '.join(f'{x:>8}' for x in PARTS[:-1])} |")
    print(f"|{'-' * 24}|{'-' * 26}|{'|'.join(['-' * 10] * (len(PARTS) - 1))}|")
    for name, steps in times.items():
        *parts, total = zip(*steps)
        text = f"{statistics.median(total):.1f} [{min(total):.1f}, {max(total):.1f}]"
        print(f"| {name:22} | {text:24} | {' | '.join(f'{statistics.median(x):8.2f}' for x in parts)} |")
    for name in list(times)[1:]:
        own, other = ([x[-1] for x in times[n]] for n in ("asr_core numba", name))
        ratio = f"{statistics.median(other) / statistics.median(own):.1f} by medians, {min(other) / min(own):.1f} by minima"
        print(f"asr_core numba is faster than {name} by a factor of {ratio}")


if __name__ == "__main__":
    main()

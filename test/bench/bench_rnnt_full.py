"""Full RNN-T loss, from the joiner's projections to their gradients: time and memory, beside the
pruned one's.

    python test/bench/bench_rnnt_full.py [--shape 4,200,40,512,500] [--device cuda]

Compared: asr_core's loss from projections, which keeps no logits; a joiner that makes all logits,
then asr_core's loss of them, and torchaudio's where it can be imported; and the pruned loss
(another loss: simple loss, windows, joiner inside them), which has no part in the comparison of
results. Losses and gradients of the others are compared before anything is timed. Every program
runs in a process of its own, in turns, set up as asr_core's programs are. Memory is the growth of
the process' peak (CPU) or the allocator's peak (CUDA) over what inputs take.
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_rnnt import machine

ROWS = {
    "projected": "asr_core, from projections",
    "projected-torch": "the same, back end torch",
    "all-logits": "asr_core, all logits",
    "torchaudio": "torchaudio, all logits",
    "pruned": "asr_core, pruned loss (range 5)",
}
NAMES = ("am", "lm", "weight", "bias")


def loss_function(program):
    """From am, lm, weight, bias, symbols, boundary to a scalar."""
    import torch
    import torch.nn.functional as F

    from asr_core.ops import rnnt_loss as ops

    def logits_of(am, lm, weight, bias):
        return F.linear(torch.tanh(am + lm), weight, bias)

    def projected(am, lm, weight, bias, symbols, boundary, backend="auto"):
        return ops.rnnt_loss_projected(
            am, lm, weight, bias, symbols, 0, boundary, reduction="sum", backend=backend
        )

    def all_logits(am, lm, weight, bias, symbols, boundary):
        return ops.rnnt_loss(
            logits_of(am[:, :, None], lm[:, None], weight, bias), symbols, 0, boundary, reduction="sum"
        )

    def torchaudio(am, lm, weight, bias, symbols, boundary):
        import torchaudio

        lengths = boundary[:, 3].int(), boundary[:, 2].int()
        logits = logits_of(am[:, :, None], lm[:, None], weight, bias)
        return torchaudio.functional.rnnt_loss(logits, symbols.int(), *lengths, blank=0, reduction="sum")

    def pruned(am, lm, weight, bias, symbols, boundary):
        # the simple loss' own projections cost as much as these
        simple_am, simple_lm = F.linear(am, weight, bias), F.linear(lm, weight)
        simple, counts = ops.rnnt_loss_smoothed(
            simple_lm, simple_am, symbols, 0, 0.25, 0.0, boundary, reduction="sum", return_grad=True
        )
        ranges = ops.get_rnnt_prune_ranges(*counts, boundary, 5)
        logits = logits_of(*ops.do_rnnt_pruning(am, lm, ranges), weight, bias)
        return 0.5 * simple + ops.rnnt_loss_pruned(logits, symbols, ranges, 0, boundary, reduction="sum")

    programs = {"projected": projected, "all-logits": all_logits, "torchaudio": torchaudio, "pruned": pruned}
    programs["projected-torch"] = lambda *inputs: projected(*inputs, backend="torch")
    return programs[program]


def inputs_of(shape, device):
    """Leaves am, lm, weight, bias; symbols and boundary.

    Lengths differ by up to a fifth; most of the probability is near the diagonal.
    """
    import torch

    batch, frames, num, width, columns = (int(x) for x in shape.split(","))
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, frames, width), (batch, num + 1, width), (columns, width), (columns,)]
    leaves = [torch.randn(size, generator=generator) for size in sizes]
    leaves[2] *= 3 / width**0.5
    ends = [torch.linspace(most, 0.8 * most, batch).round().long() for most in (num, frames)]
    boundary = torch.stack((torch.zeros_like(ends[0]), torch.zeros_like(ends[0]), *ends), 1)
    symbols = torch.randint(1, columns, (batch, num), generator=generator)
    return [x.to(device).requires_grad_() for x in leaves], [symbols.to(device), boundary.to(device)]


def work(program, folder, args):
    """Run one process: write results to a file, milliseconds of forward and of both, and
    megabytes, to standard output.
    """
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from asr_core.utils.runtime import keep_memory, share_cores

    share_cores()
    import numpy as np
    import torch

    keep_memory()
    torch.set_num_threads(args.threads)
    cuda = args.device == "cuda"
    function = loss_function(program)
    leaves, rest = inputs_of("1,4,2,8,5", args.device)
    function(*leaves, *rest).backward()  # compiles kernels
    leaves, rest = inputs_of(args.shape, args.device)
    for x in leaves:
        x.grad = torch.zeros_like(x)

    def used():
        return (
            torch.cuda.max_memory_allocated() / 1e6
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        )

    def now():
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    times, before = [], used()
    for repeat in range(args.repeats + 1):
        start = now()
        loss = function(*leaves, *rest)
        middle = now()
        loss.backward()
        times.append([1000 * (middle - start), 1000 * (now() - start)])
        if repeat == 0:
            grads = {name: x.grad.cpu().numpy().copy() for name, x in zip(NAMES, leaves)}
            np.savez(folder / f"{program}.npz", loss=loss.item(), **grads)
    print(json.dumps([times[1:], used() - before]))


def check(folder, program):
    """Stop unless ``program`` computed what the first one did."""
    import numpy as np

    one, other = np.load(folder / f"{program}.npz"), np.load(folder / "projected.npz")
    for name in ("loss", *NAMES):
        error = np.abs(one[name] - other[name]).max() / np.abs(other[name]).max()
        if not error < (
            1e-3 if program == "torchaudio" else 1e-4
        ):  # torchaudio adds up paths in float32, asr_core in float64
            raise SystemExit(f"{program} and projected differ in {name}: {error:.1e}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", default="4,200,40,512,500", help="batch, frames, symbols, width of the joiner, vocabulary"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=3, help="timed steps per process")
    parser.add_argument("--rounds", type=int, default=2, help="processes per program, in turns")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", nargs=2, metavar=("PROGRAM", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def possible(program):
    """Whether ``program`` can run here; torchaudio no longer has the loss in its newest versions."""
    if program != "torchaudio":
        return True
    try:
        import torchaudio

        return hasattr(torchaudio.functional, "rnnt_loss")
    except ImportError:
        return False


def main():
    args = arguments()
    if args.work:
        work(args.work[0], Path(args.work[1]), args)
        return
    programs = [program for program in ROWS if possible(program)]
    times, memory = {p: [] for p in programs}, {p: [] for p in programs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for program in programs:
                options = [
                    f"--{name}={getattr(args, name)}" for name in ("shape", "device", "repeats", "threads")
                ]
                command = [sys.executable, __file__, *options, "--work", program, folder]
                environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
                output = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True, check=True
                ).stdout
                steps, peak = json.loads(output.splitlines()[-1])
                times[program] += steps
                memory[program].append(peak)
                if program != "pruned":
                    check(Path(folder), program)
    print(
        f"(B, T, U, J, V) = ({args.shape}), {args.device}, {args.threads} threads, {machine()}, {datetime.date.today()}"
    )
    print(
        f"medians of {args.rounds} x {args.repeats} steps; losses and gradients of all but the pruned loss are equal\n"
    )
    print(f"| {'':32} | forward, ms | both, ms | least, ms | memory, MB |")
    print(f"|{'-' * 34}|{'-' * 13}|{'-' * 10}|{'-' * 11}|{'-' * 12}|")
    for program in programs:
        forward, both = zip(*times[program])
        figures = f"{statistics.median(forward):11.0f} | {statistics.median(both):8.0f} | {min(both):9.0f} | {max(memory[program]):10.0f}"
        print(f"| {ROWS[program]:32} | {figures} |")


if __name__ == "__main__":
    main()

"""Time and memory of a training step on the CPU, by parts, with the machine's matrix-product speed
beside it.

    python test/bench/bench_train_step.py --model-size tiny
    python test/bench/bench_train_step.py --model-size medium --encoder-only 1 --batch 8 --frames 1000

``tiny`` is the causal model of the digits recipe, on batches of 30 s in utterances of different
lengths, with losses and optimizer. With --encoder-only the front end and the encoder alone run, on
a full batch, forward without gradient and forward + backward.
"""

import argparse
import datetime
import platform
import random
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-size", default="tiny")
    parser.add_argument("--encoder-only", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="utterances, with --encoder-only")
    parser.add_argument("--frames", type=int, default=1000, help="frames each, with --encoder-only")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--batch-count",
        type=float,
        default=20000.0,
        help="what dropout and other schedules take as the batch count",
    )
    args = parser.parse_args()
    from asr_core.utils.runtime import setup_cpu

    setup_cpu()
    import torch

    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"matrix product 1024^3: {matmul_speed():.0f} GFLOP/s")
    torch.manual_seed(0)
    random.seed(0)
    rows = encoder_rows(args) if args.encoder_only else step_rows(args)
    print(f"{'part':32} {'median':>8} {'min':>8} {'max':>8}  s")
    for name, times in rows.items():
        print(f"{name:32} {statistics.median(times):8.3f} {min(times):8.3f} {max(times):8.3f}")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def matmul_speed() -> float:
    import torch

    a, times = torch.randn(1024, 1024), []
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / statistics.median(times) / 1e9


def build(args, causal):
    from asr_core.models import ModelOptions, build_model
    from asr_core.nn.scaling import set_batch_count
    from asr_core.utils.options import from_params

    model = build_model(
        from_params(ModelOptions, {"model_size": args.model_size, "causal": causal}),
        34 if args.model_size == "tiny" else 500,
    )
    set_batch_count(model, args.batch_count)
    return model.train()


def step_rows(args):
    """Forward with losses, backward, optimizer, on ``args.steps`` batches of 30 s."""
    import torch

    from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs

    model = build(args, causal=True)
    optimizer = ScaledAdam(
        get_parameter_groups_with_lrs(model, lr=0.02, include_names=True), lr=0.02, clipping_scale=2.0
    )
    rows = {"forward and losses": [], "backward": [], "optimizer": [], "step": []}
    for i in range(args.steps + 3):
        longest = random.randint(150, 500)
        lens = sorted(
            (random.randint(int(0.85 * longest), longest) for _ in range(3000 // longest)), reverse=True
        )
        x, y = (
            torch.randn(len(lens), lens[0], 80) * 3 - 6,
            [[random.randrange(1, 34) for _ in range(n // 20)] for n in lens],
        )
        clock = [time.perf_counter()]
        losses = model(x, torch.tensor(lens), y)
        clock.append(time.perf_counter())
        (0.5 * losses.simple_loss + losses.pruned_loss).backward()
        clock.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        clock.append(time.perf_counter())
        if i >= 3:  # the first ones compile kernels and take memory
            for name, seconds in zip(
                rows, [b - a for a, b in zip(clock, clock[1:])] + [clock[-1] - clock[0]]
            ):
                rows[name].append(seconds)
    return rows


def encoder_rows(args):
    """Front end and encoder on one full batch."""
    import torch

    model = build(args, causal=False)
    x, x_lens = torch.randn(args.batch, args.frames, 80), torch.full((args.batch,), args.frames)
    rows = {
        "forward without gradient (eval)": [],
        "forward (train)": [],
        "backward (train)": [],
        "forward + backward (train)": [],
    }
    for i in range(args.steps + 1):
        model.eval()
        with torch.no_grad():
            began = time.perf_counter()
            model.forward_encoder(x, x_lens)
            forward = time.perf_counter() - began
        model.train()
        clock = [time.perf_counter()]
        out, _ = model.forward_encoder(x, x_lens)
        clock.append(time.perf_counter())
        out.sum().backward()
        clock.append(time.perf_counter())
        model.zero_grad()
        if i >= 1:
            for name, seconds in zip(
                rows, [forward, clock[1] - clock[0], clock[2] - clock[1], clock[2] - clock[0]]
            ):
                rows[name].append(seconds)
    return rows


if __name__ == "__main__":
    main()

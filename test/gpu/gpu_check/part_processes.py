"""Part: several processes: two on one GPU by gloo, NCCL with one rank and with as many as there are GPUs."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List

from gpu_check import train_runs
from gpu_check.setup import Setup, Skipped

_SECONDS = 80.0


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the kinds of groups."""
    return {
        "NCCL, one rank": lambda: one_rank(setup),
        "NCCL, one rank, divided model": lambda: one_rank_divided(setup),
        "one process, two batches a step": lambda: alone(setup),
        "gloo, two processes on one GPU": lambda: two_by_gloo(setup),
        "the same, gradients in bfloat16": lambda: two_by_gloo(setup, "--ddp-compression", "bf16"),
        "NCCL, one process for each GPU": lambda: by_gpus(setup),
        "the same, divided model": lambda: by_gpus(setup, "--shard", "fsdp"),
        "NCCL, two processes on one GPU": lambda: two_by_nccl(setup),
    }


def _steps(setup: Setup) -> int:
    return 4 if setup.small else 15


def one_rank(setup: Setup) -> Dict[str, Any]:
    """Sum gradients by DistributedDataParallel and each compression, in a group of one."""
    import torch

    from asr_core.training.distributed.gradients import SummedGradients

    errors: Dict[str, float] = {}
    with _group_of_one(setup) as group:
        for compression in ("none", "bf16", "fp16"):
            layer = torch.nn.Linear(64, 64).to(setup.device)
            x = torch.randn(8, 64, device=setup.device)
            (want,) = torch.autograd.grad(layer(x).square().sum(), [layer.weight])
            scaler = torch.amp.GradScaler(setup.device, enabled=False)
            gradients = SummedGradients(layer, scaler, group, compression)
            for _ in range(2):
                layer.zero_grad()
                gradients.add(layer(x).square().sum(), last=True)
            errors[compression] = float((layer.weight.grad - want).abs().max() / want.abs().max())
    bad = [c for c, error in errors.items() if not error < {"none": 1e-6, "bf16": 1e-2, "fp16": 2e-3}[c]]
    if bad:
        raise AssertionError(f"gradients differ: {errors}")
    return {f"error {name}": error for name, error in errors.items()}


@contextlib.contextmanager
def _group_of_one(setup: Setup) -> Iterator[Any]:
    """Return a context with a group of this process alone, in which gradients travel."""
    import torch.distributed as dist

    place = setup.work / f"rendezvous-{time.monotonic_ns()}"
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    try:
        yield dist.new_group(backend="gloo" if setup.small else "nccl")
    finally:
        dist.destroy_process_group()


def one_rank_divided(setup: Setup) -> Dict[str, Any]:
    """Train a model by ``--shard fsdp`` in a group of one, and the same model whole."""
    import copy

    import torch

    from asr_core.training.batch_loss import BatchLoss
    from asr_core.training.distributed.fsdp import DividedGradients, FsdpShards
    from asr_core.training.optim.scaled_adam import ScaledAdam
    from asr_core.training.optim.shards import gathered

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
            self.scale = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x).tanh()
            return (x * self.scale).square().sum()

    device = torch.device(setup.device)
    whole = Layers().to(device)
    model = copy.deepcopy(whole)
    x = torch.randn(8, 64, device=device)
    with _group_of_one(setup) as group:
        world: Any = SimpleNamespace(gradient_group=group, size=1, rank=0, exchange=lambda row: [row])
        shards = FsdpShards(model, world, device, None)
        optimizers = [ScaledAdam(list(m.parameters()), lr=0.02, clipping_scale=2.0) for m in (whole, model)]
        shards.adopt(optimizers[1])
        gradients = DividedGradients(shards, torch.amp.GradScaler(setup.device, enabled=False), world)
        for _ in range(6):
            whole(x).backward()
            out = gradients.loss_of({"x": x}, lambda batch: BatchLoss(model(batch["x"]), {}, 1))
            gradients.add(out.loss if out else None, last=True)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        with shards.whole(), torch.no_grad():
            outputs = [float(m(x)) for m in (whole, model)]
        found = gathered(model.state_dict(), keep=True)
    apart = max(float((found[n].cpu() - v.cpu()).abs().max()) for n, v in whole.state_dict().items())
    row = {"weights apart": apart, "outputs apart": abs(outputs[0] - outputs[1]) / abs(outputs[0])}
    if not max(row.values()) < 1e-3:
        raise AssertionError(f"a divided model trains otherwise: {row}")
    return row


def alone(setup: Setup) -> Dict[str, Any]:
    """Train in one process, with the batches that two would have."""
    exp_dir = setup.work / "exp-alone"
    steps = _steps(setup)
    options = ["--accum-grad", "2", "--save-every-n", str(steps)]
    train_runs.run(train_runs.command(setup, exp_dir, steps, *options), train_runs.environment(setup))
    return train_runs.falling(train_runs.losses(exp_dir), steps, 1.05)


def two_by_gloo(setup: Setup, *options: str) -> Dict[str, Any]:
    """Train by two processes that share a GPU; each takes itself for alone on a machine."""
    return _compare(setup, _as_two_machines(setup, "gloo", {}, *options))


def two_by_nccl(setup: Setup) -> Dict[str, Any]:
    """Try the same by NCCL, which refuses a GPU twice, unless the machines seem different."""
    if setup.small:
        raise Skipped("needs a GPU")
    try:
        exp_dir = _as_two_machines(setup, "nccl", {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"})
    except RuntimeError as e:
        raise Skipped(f"NCCL does not share a GPU here: {e}") from e
    return _compare(setup, exp_dir)


def by_gpus(setup: Setup, *more: str) -> Dict[str, Any]:
    """Train with ``--world-size``: a process on each GPU; in the rehearsal two on the CPU."""
    import torch

    size = 2 if setup.small else torch.cuda.device_count()
    if size < 2:
        raise Skipped("one GPU")
    exp_dir, steps = setup.work / f"exp-gpus{len(more) or ''}", _steps(setup)
    options = ["--world-size", str(size), "--save-every-n", str(steps), *more]
    train_runs.run(train_runs.command(setup, exp_dir, steps, *options), train_runs.environment(setup))
    found = train_runs.losses(exp_dir)
    return {"processes": size, **train_runs.falling(found, steps, 1.05)}


def _compare(setup: Setup, exp_dir: Path) -> Dict[str, Any]:
    """Compare two processes with one that has the same batches; dropout differs."""
    steps = _steps(setup)
    got, want = train_runs.losses(exp_dir), train_runs.losses(setup.work / "exp-alone")
    row = train_runs.falling(got, steps, 1.05)
    apart = {i: abs(got[i]["loss"] - want[i]["loss"]) / abs(want[i]["loss"]) for i in (1, steps)}
    row.update({"first step apart": apart[1], "last step apart": apart[steps]})
    if not apart[1] < 0.1 or not apart[steps] < 0.3:
        raise AssertionError(f"two processes differ from one with the same batches: {row}")
    return row


def _free_port() -> int:
    """Return a port that no other check on this machine uses."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _as_two_machines(setup: Setup, backend: str, more: Dict[str, str], *options: str) -> Path:
    """Start two processes as a launcher would on two machines with a GPU each."""
    exp_dir, steps = setup.work / f"exp-two-{backend}{len(options) or ''}", _steps(setup)
    port = _free_port()
    usual = train_runs.command(setup, exp_dir, steps, "--save-every-n", str(steps), "--dist-timeout", "60")
    usual += options
    own = str(Path(__file__).with_name("shared_gpu.py"))
    children: List["subprocess.Popen[str]"] = []
    logs = [setup.work / f"two-{backend}-{rank}.log" for rank in range(2)]
    for rank, log in enumerate(logs):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        nccl = {"NCCL_HOSTID": f"machine-{rank}", "NCCL_SOCKET_IFNAME": "lo", "CHECK_BACKEND": backend}
        env = train_runs.environment(setup, **place, **meeting, **nccl, **more)
        with open(log, "w") as stream:
            command = [sys.executable, own, *usual[1:]]
            children.append(
                subprocess.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT, text=True)
            )
    _wait(children, logs)
    return exp_dir


def _wait(children: List["subprocess.Popen[str]"], logs: List[Path]) -> None:
    """Wait for all; end the others when one fails or time is over."""
    end = time.monotonic() + _SECONDS * (4 if os.environ.get("TRITON_INTERPRET") else 1)
    try:
        while any(child.poll() is None for child in children) and time.monotonic() < end:
            if any(child.poll() not in (None, 0) for child in children):
                time.sleep(3.0)  # the others say what they know
                break
            time.sleep(0.2)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        statuses = [child.wait() for child in children]
        for log in logs:
            print(f"-- {log.name}\n{log.read_text(errors='replace')[-6000:]}", flush=True)
    if any(statuses):
        tails = [" ".join(log.read_text(errors="replace")[-200:].split()) for log in logs]
        raise RuntimeError(f"statuses {statuses}: {tails}")

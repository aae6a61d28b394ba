"""Gradients of a tiny Zipformer, computed by several ranks; a program.

Arguments: a folder, then for each group its number of ranks, which are forked. Rank r writes
``gradients-<size>-<r>.pt``, by name of case; rank 0 of the first group also ``trace.json``, the
times of a backward pass in microseconds.
"""

import json
import multiprocessing
import sys
from pathlib import Path

import fake_run
import torch
from tiny_program import ZipformerRecipe
from torch import nn

from asr_core.training.distributed import launch
from asr_core.training.distributed.gradients import SummedGradients, gradients_of
from asr_core.training.distributed.world import run_in_group
from asr_core.training.options import ProcessOptions

# The batches of a step, one after the other: those of rank 0, 1, 2. Groups may be smaller.
CASES = {
    "one batch each": [[0, 1, 2]],
    "one without": [[0, None, 2]],
    "the first one without": [[None, 1, 2]],
    "accumulated": [[0, 1, 2], [3, None, 5], [6, 7, None]],
    "accumulated, none of rank 1 at the end": [[1, 0, 2], [3, None, 5]],
}
COMPRESSED = {"fp16": 1.0, "fp16, large": 1e8, "bf16": 1.0}  # by what losses are multiplied


class Losses:
    """A model, and its loss on the batch of an index.

    Batch 1 alone uses ``of_batch_1``, and none uses ``unused``.
    """

    def __init__(self, exp_dir):
        self.recipe = ZipformerRecipe(fake_run.make_params(exp_dir), fake_run.CORPUS)
        torch.manual_seed(0)
        self.model = self.recipe.build_model().eval()
        self.model.unused, self.model.of_batch_1 = nn.Linear(2, 2), nn.Linear(2, 2)
        self.data = self.recipe.build_datamodule()

    def of(self, index):
        loss = self.recipe.compute_loss(self.model, self.data._batch(1, index), 5).loss
        return loss + self.model.of_batch_1(torch.ones(2)).sum() if index == 1 else loss

    def take(self):
        """Return copies of the gradients, and remove them: the next ones have the same memory."""
        grads = {
            name: p.grad if p.grad is None else p.grad.clone() for name, p in self.model.named_parameters()
        }
        self.model.zero_grad(set_to_none=True)
        return grads


def batches_of_step(case, size):
    """Return the batches of all ``size`` ranks."""
    return [index for row in CASES[case] for index in row[:size] if index is not None]


def no_scaler():
    return torch.amp.GradScaler("cpu", enabled=False)


def step(losses, gradients, case, rank, factor=1.0):
    for number, row in enumerate(CASES[case], start=1):
        loss = None if row[rank] is None else losses.of(row[rank]) * factor
        gradients.add(loss, last=number == len(CASES[case]))
    return losses.take()


def trace(world):
    """Return the times of each kind of event in the second backward pass of a deep model."""
    model = nn.Sequential(*[nn.Linear(600, 600) for _ in range(8)])
    gradients = SummedGradients(model, no_scaler(), world.gradient_group, bucket_mb=1)
    for profiler in (torch.profiler.profile(), torch.profiler.profile()):
        loss = model(torch.ones(256, 600)).square().sum()
        with profiler:
            gradients.add(loss, last=True)
    kinds = {"sum": "gloo:all_reduce", "backward": "autograd::engine::evaluate_function: AddmmBackward0"}
    return {
        kind: sorted((e.time_range.start, e.time_range.end) for e in profiler.events() if e.name == name)
        for kind, name in kinds.items()
    }


def ranks(rank_info, exp_dir):
    def body(world):
        losses, found = Losses(exp_dir), {}
        gradients = gradients_of(losses.model, no_scaler(), world)
        for case in CASES:
            found[case] = step(losses, gradients, case, world.rank)
            gradients.add(losses.of(world.rank), last=False)  # and the step is skipped
            losses.take()
        for name, factor in COMPRESSED.items():
            gradients = gradients_of(losses.model, no_scaler(), world, name[:4])
            found[name] = step(losses, gradients, "accumulated", world.rank, factor)
        gradients = gradients_of(losses.model, no_scaler(), world, "fp16")
        loss = None if world.rank else losses.of(0) * torch.tensor(float("inf"))
        gradients.add(loss, last=True)
        found["fp16, infinite"] = losses.take()
        torch.save(found, Path(exp_dir) / f"gradients-{world.size}-{world.rank}.pt")
        if world.size == 2:
            found = trace(world)
            if world.is_main:
                (Path(exp_dir) / "trace.json").write_text(json.dumps(found))
        return 0

    return run_in_group(rank_info, ProcessOptions(device="cpu"), body)


if __name__ == "__main__":
    torch.set_num_threads(1)
    launch.get_context = lambda method: multiprocessing.get_context("fork")
    for size in map(int, sys.argv[2:]):
        status = launch.spawn(ranks, (sys.argv[1],), size, launch.free_port())
        assert status == 0, status

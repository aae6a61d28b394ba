"""Tiny models of each encoder, divided among several ranks, beside whole ones; a program.

Arguments: a folder, the number of ranks, which are forked, and the names of cases. Rank r writes
``divided-<r>.json``: by name of case, what was found.
"""

import copy
import importlib
import json
import multiprocessing
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tiny_encoders import TINY

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.training.batch_loss import BatchLoss
from asr_core.training.distributed import launch
from asr_core.training.distributed.fsdp import DividedGradients, shard_model
from asr_core.training.distributed.world import run_in_group
from asr_core.training.layers import change_layers
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.training.optim.shards import gathered, load_weights
from asr_core.training.optim.weight_noise import WeightNoise
from asr_core.training.options import ProcessOptions
from asr_core.utils.options import from_params

HEADS = {"decoder_dim": 8, "joiner_dim": 8, "use_ctc": True}
CASES = {
    **{kind: {} for kind in TINY},
    "zipformer, attention decoder": {
        "use_attention_decoder": True,
        "attention_decoder_num_layers": 2,
        "attention_decoder_dim": 16,
        "attention_decoder_attention_dim": 16,
        "attention_decoder_num_heads": 2,
        "attention_decoder_feedforward_dim": 16,
    },
    "conformer, computed again": {"activation_checkpointing": "layer"},
    "conformer, selectively": {"activation_checkpointing": "selective"},
}
CPU = torch.device("cpu")


def model_of(name):
    kind, options = name.split(",")[0], dict(CASES[name])
    again = options.pop("activation_checkpointing", "none")
    torch.manual_seed(0)
    model = build_model(from_params(options_class(kind), {**HEADS, **TINY[kind], **options}), vocab_size=7)
    change_layers(model, ProcessOptions(activation_checkpointing=again), CPU)
    return model.double()  # rounding errors of vanishing gradients would become steps of ScaledAdam


def batch_of(index):
    rng = torch.Generator().manual_seed(index)
    return {
        "x": torch.randn(2, 90, 80, generator=rng).double(),
        "x_lens": torch.tensor([90, 71]),
        "y": [[3, 4], [5]],
    }


def loss_of(model, batch):
    losses = model(batch["x"], batch["x_lens"], batch["y"])
    return BatchLoss(sum(loss for loss in losses if loss is not None), {}, 1)


def optimizer_of(model):
    return ScaledAdam([{"named_params": list(model.named_parameters())}], lr=0.02, clipping_scale=2.0)


class Whole:
    """A model, whole on each rank, and what trains it by plain sums of gradients."""

    def __init__(self, name):
        self.model = model_of(name)
        self.optimizer = optimizer_of(self.model)
        self.average = ModelAverage(self.model, 1)

    def step(self, batches):
        for batch in batches:
            if batch is not None:
                loss_of(self.model, batch).loss.backward()
        for p in self.model.parameters():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Divided:
    """The same, of which each rank has a part."""

    def __init__(self, name, world, compression="none"):
        self.model = model_of(name)
        self.shards = shard_model(self.model, world, CPU, "fsdp", compression)
        self.optimizer = optimizer_of(self.model)
        self.shards.adopt(self.optimizer)
        self.average = ModelAverage(self.model, 1)
        self.gradients = DividedGradients(self.shards, torch.amp.GradScaler("cpu", enabled=False), world)

    def step(self, batches):
        for number, batch in enumerate(batches, start=1):
            out = self.gradients.loss_of(batch, lambda batch: loss_of(self.model, batch))
            assert (out is None) == (batch is None)
            self.gradients.add(None if out is None else out.loss, last=number == len(batches))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole_state(self):
        return gathered(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.shards.state_of(self.optimizer),
            },
            keep=True,
        )


def difference(a, b):
    """Return the largest difference of two nested states, relative to the largest value of each."""
    if isinstance(a, torch.Tensor):
        assert a.shape == b.shape, (a.shape, b.shape)
        if not a.numel() or not a.is_floating_point():
            return 0.0 if torch.equal(a, b) else 1.0
        return float((a - b).abs().max() / a.abs().max().clamp(min=1e-6))
    if isinstance(a, dict):
        assert a.keys() == b.keys(), a.keys() ^ b.keys()
        return max((difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, (list, tuple)):
        return max((difference(x, y) for x, y in zip(a, b)), default=0.0)
    return abs(a - b) if isinstance(a, (int, float)) else float(a != b)


def equality(name, world):
    """Train both; return the differences of all that they have, by name of part."""
    whole, divided = Whole(name), Divided(name, world)
    whole.model.eval(), divided.model.eval()
    steps = [[[0, None, 2]], [[3, 4, None], [None, 5, 6]], [[7, 8, 9]]]
    outputs = [[], []]
    for number, step in enumerate(steps, start=1):
        batches = [None if row[world.rank] is None else batch_of(row[world.rank]) for row in step]
        for side in (whole, divided):
            side.step(batches)
            side.average.update(number)
        with divided.shards.whole(), torch.no_grad():
            for values, side in zip(outputs, (whole, divided)):  # rank 0 has nothing to evaluate
                values += [float(loss_of(side.model, batch_of(20 + i)).loss) for i in range(world.rank)]
    found = divided.whole_state()
    return {
        "model": difference(whole.model.state_dict(), found["model"]),
        "average": difference(whole.average.state_dict(), found["average"]),
        "moments": difference(whole.optimizer.state_dict()["state"], found["optimizer"]["state"]),
        "outputs": difference(*outputs),
    }


def loading(name, world):
    """Load the state of one side into the other, and train on; return the differences."""
    whole, divided, again = Whole(name), Divided(name, world), Divided(name, world)
    for side in (whole, divided, again):
        side.model.eval()
    for index in range(3):
        divided.step([batch_of(index + world.rank)])
        divided.average.update(index + 1)
    state = divided.whole_state()
    whole.model.load_state_dict(state["model"])
    whole.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    whole.average.load_state_dict(state["average"])
    load_weights(again.model, state["model"])
    again.shards.load_optimizer(again.optimizer, copy.deepcopy(state["optimizer"]))
    again.average.load_state_dict(state["average"])
    for side in (whole, divided, again):
        for index in range(3, 6):
            side.step([batch_of(index + world.rank)])
            side.average.update(index + 1)
    found, other = divided.whole_state(), again.whole_state()
    return {
        "loaded by the other": max(
            difference(whole.model.state_dict(), found["model"]),
            difference(whole.average.state_dict(), found["average"]),
            difference(whole.optimizer.state_dict()["state"], found["optimizer"]["state"]),
        ),
        "loaded by the same": difference(found["model"], other["model"]),
    }


def drawing(name, world):
    """Train with random numbers of each rank's own; return whether all ranks have finite weights."""
    divided = Divided(name, world)
    divided.model.train()
    torch.manual_seed(world.rank), random.seed(world.rank)
    for index in range(4):
        divided.step([batch_of(index) if index % 3 or world.rank else None])
    state = divided.whole_state()["model"]
    return {"finite": all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point())}


def noise(world):
    """Return the difference of divided and whole weights with noise, and after it."""
    found = []
    models = [model_of("conformer"), model_of("conformer")]
    shard_model(models[1], world, CPU, "fsdp", "none")
    for model in models:
        with WeightNoise(model, {"decoder": 0.1, "joiner": 0.2}, start=0, seed=5).on(3, 1.0):
            blurred = {k: v.clone() for k, v in gathered(model.state_dict(), keep=True).items()}
        found.append([blurred, gathered(model.state_dict(), keep=True)])
    assert difference(*found[0]) > 0.01
    return {"difference": difference(*found)}


def sizes(world):
    """Return the bytes of weights, gradients, averages and moments on this rank, of both kinds."""
    whole, divided = Whole("conformer"), Divided("conformer", world)
    for side in (whole, divided):
        side.step([batch_of(world.rank)])
    params = divided.optimizer.param_groups[0]["params"]
    held = [whole.model.parameters(), params]
    return {
        kind: sum(p.numel() for p in parameters)
        + sum(
            t.numel()
            for state in side.optimizer.state.values()
            for t in state.values()
            if isinstance(t, torch.Tensor)
        )
        + sum(t.numel() for t in side.average._average)
        for kind, side, parameters in zip(("whole", "divided"), (whole, divided), held)
    }


def compressed(world):
    whole, divided = Whole("conformer"), Divided("conformer", world, "bf16")
    for side in (whole, divided):
        side.model.eval()
        side.step([batch_of(world.rank)])
    return {"difference": difference(whole.model.state_dict(), divided.whole_state()["model"])}


def ranks(rank_info, folder, names):
    def body(world):
        found = {}
        for name in names:
            found[name] = {**equality(name, world), **drawing(name, world)}
        found["loading"] = loading("conformer", world)
        found["noise"], found["sizes"], found["bf16"] = noise(world), sizes(world), compressed(world)
        (Path(folder) / f"divided-{world.rank}.json").write_text(json.dumps(found))
        return 0

    return run_in_group(rank_info, ProcessOptions(device="cpu", dist_timeout=60.0), body)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for module in ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor"):
        importlib.import_module(module)  # once here, not in each rank
    launch.get_context = lambda method: multiprocessing.get_context("fork")
    folder, size, *names = sys.argv[1:]
    sys.exit(launch.spawn(ranks, (folder, names), int(size), launch.free_port()))

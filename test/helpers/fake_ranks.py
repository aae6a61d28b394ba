"""Runs of fake_run in several processes, one run per argument, which is a JSON object of options.

Ranks are forked, which saves their imports. Prints a JSON list with the exit status of each run,
its seconds, and the message of the launcher, if any.
"""

import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import fake_run
import torch

from asr_core.nn.batch_norm import MaskedBatchNorm1d
from asr_core.nn.scaling import ScheduledFloat
from asr_core.training import loop
from asr_core.training.distributed import launch
from asr_core.training.distributed.world import run_in_group
from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params


class Watched(fake_run.FakeRecipe):
    """Records which batches it trains on."""

    def build_model(self):
        model = super().build_model()
        if self.params.get("norm"):
            model.encoder.append(MaskedBatchNorm1d(16))
        return model

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        if model.training and reduction == "sum":
            with open(Path(self.params["exp_dir"]) / f"used-{self.rank}", "a") as f:
                print(batch["supervisions"]["cut"][0].id, file=f)
            if self.params.get("mistake_at") == batch_idx_train and self.rank == 1:
                raise UserError("what one rank does not like")
        out = super().compute_loss(model, batch, batch_idx_train, reduction)
        if self.params.get("die_in_backward") == batch_idx_train and self.rank == 1 and model.training:
            signum = self.params.get("die_signal", signal.SIGKILL)
            out.loss.register_hook(lambda grad: os.kill(os.getpid(), signum))
        return out


class Plain(fake_run.FakeRecipe):
    """A recipe without anything random.

    Ranks together can so be compared with one process that has all their batches.
    """

    def build_model(self):
        model = super().build_model()
        norm = bool(self.params.get("norm"))
        # A bias before a norm has no gradient but rounding errors, which ScaledAdam makes large.
        model.encoder = torch.nn.Sequential(torch.nn.Linear(8, 16, bias=not norm))
        if norm:
            model.encoder.append(MaskedBatchNorm1d(16))
        model.dropout = ScheduledFloat((0.0, 0.0), (1.0, 0.0))
        fake_run.random.random = lambda: 1.0
        return model

    def build_datamodule(self):
        data = super().build_datamodule()
        if self.params.get("joined"):
            data.train_dataloader = lambda *args: joined_batches(self.params["joined"], data._batch, *args)
        return data


def joined_batches(number, batch, cuts, epoch, skip_batches, bucket_run):
    """Yield ``number`` batches as one."""
    for index in range(skip_batches, fake_run.BATCHES // number):
        parts = [batch(epoch, number * index + i) for i in range(number)]
        held = [part["supervisions"] for part in parts]
        supervisions = {k: [item for each in held for item in each[k]] for k in ("text", "cut")}
        supervisions["num_frames"] = torch.cat([each["num_frames"] for each in held])
        yield {
            "inputs": torch.cat([part["inputs"] for part in parts]),
            "supervisions": supervisions,
            "batch_idx": index,
        }


RECIPES = {"watched": Watched, "plain": Plain}


def body(rank_info, exp_dir, recipe, options):
    """Train as one rank."""
    logging.getLogger().handlers[:] = [logging.FileHandler(f"{exp_dir}/log-{rank_info.rank}")]
    params = fake_run.make_params(exp_dir, **options)
    return run_in_group(
        rank_info,
        from_params(ProcessOptions, params),
        lambda world: loop.train(RECIPES[recipe](params, fake_run.CORPUS, world.rank, world.size), world),
    )


def attempt(exp_dir, recipe="watched", ranks=2, **options):
    """Train; return the exit status, the seconds, and the launcher's message."""
    began = time.monotonic()
    Path(exp_dir).mkdir(exist_ok=True, parents=True)
    if ranks == 1:
        return fake_run.run(exp_dir, RECIPES[recipe], **options), 0.0, ""
    try:
        status, line = launch.spawn(body, (exp_dir, recipe, options), ranks, launch.free_port()), ""
    except UserError as e:
        status, line = 1, str(e)
    return status, time.monotonic() - began, line


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.INFO)
    torch.optim.SGD(
        fake_run.FakeModel().parameters()
    ).zero_grad()  # whose first use imports much: once here, not in each rank
    for module in (
        "matplotlib.figure",
        "asr_core.ops.cpu.adam",
        "asr_core.training.reporting.plot",
        "torch.distributed.distributed_c10d",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
    ):
        importlib.import_module(module)
    launch._GRACE_SECONDS = 1.0
    launch.get_context = lambda method: multiprocessing.get_context("fork")
    print(json.dumps([attempt(**json.loads(argument)) for argument in sys.argv[1:]]))

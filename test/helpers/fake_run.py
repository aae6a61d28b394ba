"""A training run on a tiny model and made-up batches, for tests of the loop.

As a program, it trains once for each argument after the folder, each time in a process that may
die.
"""

import logging
import os
import random
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, Optional

import torch
from torch import nn

from asr_core.data.filter import DropReport
from asr_core.data.module import Survey
from asr_core.nn.scaling import Balancer, ScheduledFloat, Whiten
from asr_core.training import loop
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.loss_options import LossOptions
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.training.options import LoopOptions, SpeechOptions
from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.options import AttributeDict, defaults_of

BATCHES = 12  # of an epoch
VOCAB = 7


class Losses(NamedTuple):
    simple_loss: Optional[torch.Tensor]
    pruned_loss: Optional[torch.Tensor]
    ctc_loss: Optional[torch.Tensor]


class FakeModel(nn.Module):
    """A model with all that makes exact resuming hard.

    That is dropout, Python's random, a schedule, and the states of Whiten and Balancer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(8, 16),
            Balancer(16, channel_dim=-1),
            Whiten(num_groups=1, whitening_limit=2.0, prob=0.5, grad_scale=0.1),
        )
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.out = nn.Linear(16, VOCAB)
        self.dropout = ScheduledFloat((0.0, 0.5), (20.0, 0.1))

    def forward(self, x, x_lens, y, prune_range=5, am_scale=0.0, lm_scale=0.25, reduction="sum"):
        h = self.encoder(x)
        h = nn.functional.dropout(h, float(self.dropout), self.training)
        if self.training and random.random() < 0.3:
            h = h * 0.9
        log_probs = (self.out(h) * (1.0 + self.scale)).log_softmax(-1)
        frames = torch.arange(x.shape[1])[None] < x_lens[:, None]
        picked = torch.stack([-(log_probs[i, :, label[0]] * frames[i]).sum() for i, label in enumerate(y)])
        loss = picked.sum() if reduction == "sum" else picked
        return Losses(loss * 1.5, loss, None)


class FakeData:
    """Batches that depend on (epoch, index) alone, shared by the ranks.

    Those of ``bad_steps`` have a NaN in their second utterance.
    """

    def __init__(self, params, rank=0, world_size=1) -> None:
        self.params = params
        self.rank, self.world_size = rank, world_size
        self.dropped = DropReport()

    def _batch(self, seed, index):
        torch_rng = torch.Generator().manual_seed(seed * 1000 + index)
        x = torch.randn(3, 20, 8, generator=torch_rng)
        labels = [str(int(v)) for v in torch.randint(1, VOCAB, (3,), generator=torch_rng)]
        for row, label in enumerate(labels):
            x[row, :, int(label)] += 2.0
        cuts = [SimpleNamespace(id=f"cut-{seed}-{index}-{row}") for row in range(3)]
        supervisions = {
            "text": labels,
            "num_frames": torch.tensor([20, 16, 12], dtype=torch.int32),
            "cut": cuts,
        }
        return {"inputs": x, "supervisions": supervisions, "batch_idx": index}

    def train_dataloader(self, cuts, epoch, skip_batches=0, bucket_run=0):
        for index in range(skip_batches + self.rank, BATCHES, self.world_size):
            step = (epoch - 1) * BATCHES + index + 1
            batch = self._batch(epoch, index)
            if step in self.params.get("bad_steps", ()):
                batch["inputs"][1, 3, 2] = float("nan")
            if step == self.params.get("die_at"):
                os.kill(os.getpid(), self.params.get("die_signal", signal.SIGKILL))
            if step in self.params.get("unreadable_steps", ()):
                continue
            yield batch

    def valid_dataloader(self, cuts):
        for index in range(self.rank, 2, self.world_size):
            if self.params.get("signal_in_validation") and index == 1:
                self.params["signal_in_validation"] = 0
                os.kill(os.getpid(), signal.SIGTERM)
            yield self._batch(99, index)


class FakeRecipe(AsrRecipe):
    tokenizer = SimpleNamespace(encode=lambda texts: [[int(t)] for t in texts], pieces=["<blk>"])

    def build_model(self):
        return FakeModel()

    def build_datamodule(self):
        return FakeData(self.params, self.rank, self.world_size)

    def build_metric(self):
        return None  # the fake model cannot be searched

    def report_data(self, data, train_cuts, valid_sets):
        return Survey(utterances=3 * BATCHES, seconds=0.48 * BATCHES, tokens=9 * BATCHES)


CORPUS = SimpleNamespace(train_cuts=lambda: [], valid_cuts=lambda: [])


def make_params(exp_dir, **changes):
    """Return the options of a run of 3 epochs that logs each step."""
    options = (LoopOptions, SpeechOptions, LossOptions, OptimizerOptions)
    params = AttributeDict({name: value for cls in options for name, value in defaults_of(cls).items()})
    params.update(
        max_duration=2.0,
        exp_dir=str(exp_dir),
        num_epochs=3,
        log_interval=1,
        reset_interval=5,
        valid_interval=8,
    )
    params.update(
        save_every_n=5,
        average_period=4,
        warm_step=10,
        ref_duration=2.0,
        warmup_batches=10.0,
        tensorboard=False,
        device="cpu",
    )
    params.update(changes)
    return params


def run(exp_dir, recipe=FakeRecipe, **changes):
    """Train; return the exit status."""
    params = make_params(exp_dir, **changes)
    return loop.train(recipe(params, CORPUS))


def records(exp_dir, *left_out):
    """Return the lines of metrics.jsonl without ``left_out`` and what depends on the clock."""
    clock = {"rate", "time", *left_out}
    return [
        {k: v for k, v in record.items() if k not in clock}
        for record in read_metrics(Path(exp_dir) / "metrics.jsonl")
    ]


def environment():
    """Return variables for a Python process that imports the library and these helpers."""
    helpers = Path(__file__).parent
    path = [str(helpers.parents[1]), str(helpers), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"}


def _die_while_saving(name):
    """Kill the process when half of the checkpoint ``name`` is written."""
    save = torch.save

    def dying(content, path):
        save(content, path)
        if path.name.startswith(f".{name}."):
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying


def _attempt(exp_dir, words):
    """Train in a child process; return its exit status, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        options = dict(word.split("=") for word in words)
        if "die_in_save" in options:
            _die_while_saving(options.pop("die_in_save"))
        os._exit(run(exp_dir, **{k: int(v) for k, v in options.items()}))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":  # one attempt for each argument after the folder
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    torch.optim.SGD(
        FakeModel().parameters()
    ).zero_grad()  # whose first use imports much: once here, not in each child
    print([_attempt(sys.argv[1], argument.split()) for argument in sys.argv[2:]])

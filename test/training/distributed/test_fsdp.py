"""Models divided among several processes train as whole ones do, and take less memory."""

import json
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import torch
from divided_ranks import CASES

from asr_core.training.distributed.fsdp import shard_model
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.optim.shards import Shards, gathered, load_weights, own_rows
from asr_core.training.options import LoopOptions
from asr_core.utils.errors import UserError

CPU = torch.device("cpu")


QUICK = ("zipformer", "zipformer1", "conformer, selectively")
OTHERS = tuple(name for name in CASES if name not in QUICK)


def found_by(size, names, folder):
    """Return what each rank of a group found."""
    program = Path(fake_run.__file__).with_name("divided_ranks.py")
    argv = [sys.executable, str(program), str(folder), str(size), *names]
    done = subprocess.run(argv, env=fake_run.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return [json.loads((folder / f"divided-{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return found_by(2, QUICK, tmp_path_factory.mktemp("pair"))


def compare(found):
    """Compare with whole models the weights, averages and moments of divided ones."""
    for part in ("model", "average", "moments", "outputs"):
        assert found[part] < 1e-4, found
    assert found["finite"]  # where ranks draw other layers to skip, too


@pytest.mark.parametrize("name", QUICK)
def test_weights_averages_and_moments_are_those_of_whole_models(pair, name):
    for rank in pair:
        compare(rank[name])


@pytest.mark.slow
@pytest.mark.parametrize("size, names", [(2, OTHERS), (3, ("conformer", "zipformer1"))])
def test_other_models_and_sizes(size, names, tmp_path):
    for rank in found_by(size, names, tmp_path):
        for name in names:
            compare(rank[name])
        check_the_rest(rank, size)


def check_the_rest(found, size):
    """Check loading, noise, memory and gradients in bfloat16."""
    assert found["loading"]["loaded by the other"] < 1e-6  # a whole model
    assert found["loading"]["loaded by the same"] == 0
    assert found["noise"]["difference"] == 0
    assert found["sizes"]["divided"] < found["sizes"]["whole"] * (1 / size + 0.05)
    assert 0 < found["bf16"]["difference"] < 0.02


def test_loading_noise_memory_and_gradients_in_bfloat16(pair):
    for rank in pair:
        check_the_rest(rank, 2)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(shard="fsdp", print_diagnostics=True), "--print-diagnostics 1 looks at whole weights"),
        (dict(shard="fsdp", inf_check=True), "--inf-check 1 looks at whole weights: .* or --shard fsdp"),
    ],
)
def test_options_that_contradict_a_division(options, message):
    with pytest.raises(UserError, match=message):
        LoopOptions(**options).validate()


def test_a_single_process_has_nobody_to_share_with():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="--shard fsdp: a single process has nobody to share with"):
        shard_model(model, SingleProcess(), CPU, "fsdp", "none")
    assert not shard_model(model, SingleProcess(), CPU, "none", "none").divided


def test_whole_tensors_stay_as_they_are():
    model, shards = torch.nn.Linear(2, 2), Shards()
    state = model.state_dict()
    assert gathered(state, keep=False)["weight"] is state["weight"]
    assert own_rows(state["weight"], model.weight) is state["weight"]
    load_weights(model, {name: value + 1 for name, value in model.state_dict().items()})
    assert shards.sum(values := torch.ones(1), [model.weight]) is values
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(model, {**state, "bias": torch.ones(3)})

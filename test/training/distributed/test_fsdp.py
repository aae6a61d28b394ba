"""Models divided among several processes train as whole ones do, and take less memory."""

import json
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import torch
from divided_ranks import ALL_SIZES, CASES

from asr_core.training.distributed.fsdp import shard_model
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.optim.shards import Shards, gathered, load_weights, own_rows
from asr_core.training.options import LoopOptions
from asr_core.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank found, by number of ranks."""
    folder = tmp_path_factory.mktemp("divided")
    program = Path(fake_run.__file__).with_name("divided_ranks.py")
    argv = [sys.executable, str(program), str(folder), "2", "3"]
    done = subprocess.run(argv, env=fake_run.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return {
        size: [json.loads((folder / f"divided-{size}-{rank}.json").read_text()) for rank in range(size)]
        for size in (2, 3)
    }


@pytest.mark.parametrize("size, name", [*((2, name) for name in CASES), *((3, name) for name in ALL_SIZES)])
def test_weights_averages_and_moments_are_those_of_whole_models(found, size, name):
    for rank in found[size]:
        assert max(rank[name][part] for part in ("model", "average", "moments", "outputs")) < 1e-4, rank[name]
        assert rank[name]["finite"]  # where ranks draw other layers to skip, too


def test_a_state_is_loaded_whole_or_divided(found):
    for rank in (*found[2], *found[3]):
        assert rank["loading"]["loaded by the other"] < 1e-6
        assert rank["loading"]["loaded by the same"] == 0


def test_noise_on_divided_weights_is_that_on_whole_ones(found):
    assert {rank["noise"]["difference"] for rank in (*found[2], *found[3])} == {0.0}


@pytest.mark.parametrize("size", [2, 3])
def test_each_process_has_its_share(found, size):
    for rank in found[size]:
        assert rank["sizes"]["divided"] < rank["sizes"]["whole"] * (1 / size + 0.05)


def test_gradients_may_travel_in_bfloat16(found):
    for rank in (*found[2], *found[3]):
        assert 0 < rank["bf16"]["difference"] < 0.02


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

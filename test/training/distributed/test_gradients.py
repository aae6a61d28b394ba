"""Gradients summed over ranks: those of one process with all batches, and on their way early."""

import json
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import torch
from gradient_ranks import CASES, COMPRESSED, Losses, batches_of_step, no_scaler

from asr_core.training.distributed.gradients import gradients_of
from asr_core.training.distributed.world import SingleProcess
from asr_core.utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, alone):
    """What groups of two and three ranks wrote."""
    path = tmp_path_factory.mktemp("gradients")
    program = Path(fake_run.__file__).with_name("gradient_ranks.py")
    argv = [sys.executable, str(program), str(path), "2", "3"]
    done = subprocess.run(argv, env=fake_run.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Gradients of one process by batch."""
    losses, found = Losses(tmp_path_factory.mktemp("alone")), {}
    gradients = gradients_of(losses.model, no_scaler(), SingleProcess())
    for index in range(8):
        gradients.add(losses.of(index), last=True)
        found[index] = losses.take()
    return found


def sum_of(alone, batches):
    """Return the sums of gradients; None of parameters that no batch touches."""
    sums = {}
    for name in alone[0]:
        grads = [alone[index][name] for index in batches if alone[index][name] is not None]
        sums[name] = sum(grads[1:], grads[0]) if grads else None
    return sums


def compare(got, want, tolerance):
    compared = 0
    for name, value in want.items():
        if value is None:
            assert got[name] is None, name
        else:
            largest = float(value.abs().max())
            torch.testing.assert_close(got[name], value, rtol=0, atol=tolerance * largest, msg=name)
            compared += largest > 0
    assert compared > 100


def each_rank(folder, size):
    return [torch.load(folder / f"gradients-{size}-{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3])
def test_they_are_those_of_one_process_with_all_batches(folder, alone, size):
    for found in each_rank(folder, size):
        for case in CASES:
            batches = batches_of_step(case, size)
            compare(found[case], sum_of(alone, batches), 1e-5)
            assert (found[case]["of_batch_1.weight"] is None) == (1 not in batches)
            assert found[case]["unused.weight"] is None


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_ones_are_close_and_do_not_overflow(folder, alone, size, name):
    want = sum_of(alone, batches_of_step("accumulated", size))
    factor, digits = COMPRESSED[name], 3 if name.startswith("fp16") else 2
    largest = max(float(grad.abs().max()) for grad in want.values() if grad is not None)
    assert (largest * factor > 65504) == (factor > 1)
    for found in each_rank(folder, size):
        got = found[name]
        norm = error = 0.0
        for key, value in want.items():
            assert (got[key] is None) == (value is None)
            if value is not None:
                norm += float(value.square().sum())
                error += float((got[key] / factor - value).square().sum())
        assert 0 < (error / norm) ** 0.5 < 10**-digits


def test_what_is_not_finite_stays_so_in_float16(folder):
    for found in each_rank(folder, 2):
        grads = [grad for grad in found["fp16, infinite"].values() if grad is not None]
        assert not torch.isfinite(torch.stack([grad.sum() for grad in grads])).all()


def test_the_first_bucket_travels_while_the_backward_pass_goes_on(folder):
    trace = json.loads((folder / "trace.json").read_text())
    sums, backward = trace["sum"], trace["backward"]
    assert len(backward) == 8 and len(sums) >= 8
    assert sums[0][0] < backward[2][0]  # of eight layers


def test_a_single_process_has_nothing_to_compress():
    with pytest.raises(UserError, match="--ddp-compression bf16: a single process sends no gradients"):
        gradients_of(torch.nn.Linear(2, 2), no_scaler(), SingleProcess(), "bf16")

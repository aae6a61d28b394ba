"""Trainings that are killed again and again end like one that nobody disturbed."""

import os
import random
import signal

import pytest
from attacked_training import assert_same_result, finish, kill_group, train_and_kill

pytestmark = pytest.mark.slow

KINDS = {
    "one process": [],
    "loaders": ["--num-workers", "2"],
    "two ranks": ["--world-size", "2", "--num-workers", "1"],
    "adam, accumulation, exponential average": [
        *("--optimizer", "adam", "--base-lr", "0.002", "--schedule", "noam", "--warmup-batches", "4"),
        *("--accum-grad", "2", "--ema-decay", "0.9"),
    ],
}


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """Return a function that trains with some options, once for all tests."""
    runs = {}

    def run(kind):
        if kind not in runs:
            runs[kind] = tmp_path_factory.mktemp("undisturbed")
            finish(prepared, runs[kind], *KINDS[kind])
        return runs[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(prepared, undisturbed, tmp_path, kind):
    rng = random.Random(kind)
    exp_dir, kills = tmp_path / "exp", 0
    for _ in range(5):
        moment = rng.uniform(0.0, 0.8)
        kills += train_and_kill(
            prepared, exp_dir, lambda _, seconds, moment=moment: seconds >= moment, KINDS[kind]
        )
    assert kills >= 1
    finish(prepared, exp_dir, *KINDS[kind])
    assert_same_result(exp_dir, undisturbed(kind))


@pytest.mark.parametrize("kind", ["one process", "two ranks"])
@pytest.mark.parametrize("name", ["checkpoint-", "epoch-", "params", "metrics", "best-"])
def test_killed_while_a_file_is_written(prepared, undisturbed, tmp_path, kind, name):
    exp_dir, kills = tmp_path / "exp", 0
    for _ in range(2):
        kills += train_and_kill(
            prepared, exp_dir, lambda *_: any(exp_dir.glob(f".{name}*.tmp*")), KINDS[kind]
        )
    finish(prepared, exp_dir, *KINDS[kind])
    assert_same_result(exp_dir, undisturbed(kind))
    assert kills or name in ("metrics", "best-", "params")  # those take too short a time to be caught at


def test_killed_in_validation(prepared, undisturbed, tmp_path):
    exp_dir = tmp_path / "exp"
    for turn in range(1, 4):
        train_and_kill(prepared, exp_dir, lambda text, _, turn=turn: text.count(", validation: ") >= turn)
    finish(prepared, exp_dir)
    assert_same_result(exp_dir, undisturbed("one process"))


def test_one_of_two_ranks_dies(prepared, undisturbed, tmp_path):
    exp_dir = tmp_path / "exp"
    more = KINDS["two ranks"]

    def kill_a_rank(run):
        children = open(f"/proc/{run.pid}/task/{run.pid}/children").read().split()
        ranks = [int(pid) for pid in children if b"spawn_main" in open(f"/proc/{pid}/cmdline", "rb").read()]
        os.kill(ranks[-1] if ranks else run.pid, signal.SIGKILL)
        try:
            assert run.wait(timeout=60) != 0
        finally:
            kill_group(run)

    assert train_and_kill(prepared, exp_dir, lambda _, seconds: seconds > 0.2, more, kill_a_rank)
    finish(prepared, exp_dir, *more)
    assert_same_result(exp_dir, undisturbed("two ranks"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["one process", "two ranks"])
def test_signals_save_a_checkpoint_first(prepared, undisturbed, tmp_path, kind, number):
    exp_dir = tmp_path / "exp"

    def send(run):
        run.send_signal(number)
        assert run.wait(timeout=60) == 128 + number

    assert train_and_kill(prepared, exp_dir, lambda _, seconds: seconds > 0.1, KINDS[kind], send)
    assert list(exp_dir.glob("checkpoint-*.pt"))
    assert "Continuing from" in finish(prepared, exp_dir, *KINDS[kind])
    assert_same_result(exp_dir, undisturbed(kind))

"""Several processes: the training of one, exact resuming, and no rank left waiting."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import torch
from fake_run import records
from process_groups import group_of, wait_until

from asr_core.training.checkpoint import read_whole


def attempts(*runs):
    """Return exit status, seconds and launcher's message of each run, and what was printed."""
    argv = [sys.executable, str(Path(fake_run.__file__).with_name("fake_ranks.py")), *map(json.dumps, runs)]
    done = subprocess.run(argv, env=fake_run.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def weights(exp_dir, name="epoch-3.pt", key="model"):
    return read_whole(Path(exp_dir) / name)[key]


ADAM = dict(
    optim="adam", adam_eps=1e-4, l2=1e-3, clip_grad_norm=3.0, ema_decay=0.8, valid_with_ema=True,
    schedule="piecewise", lr_pieces="3:3e-3:linear,6:5e-4:loglinear", lr_unit="epoch", epoch_split=3,
)  # fmt: skip
FSDP = dict(shard="fsdp")
# Single processes by how many batches they have at once, and several with one each at a time.
ALONE = {
    "two at once": dict(joined=2),
    "two at once, adam": dict(joined=2, **ADAM),
    "three at once": dict(joined=3, norm=1),
    "four at once": dict(joined=4),
}
TOGETHER = {
    "pair": {},
    "pair, adam": ADAM,
    "trio": dict(ranks=3, norm=1),
    "pair, accumulating": dict(accum_grad=2),
    "pair, fp16": dict(ddp_compression="fp16"),
    "pair, divided": FSDP,
    "pair, adam, divided": {**ADAM, **FSDP},
    "trio, divided": dict(ranks=3, norm=1, **FSDP),
    "pair, accumulating, divided": dict(accum_grad=2, **FSDP),
}

DIVIDED = (
    "divided, whole", "divided, killed", "divided, bad", "divided, recovering", "divided, ill",
    "divided, then whole", "whole, then divided",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Whole and disturbed runs, all in one go, because starting costs the most.

    Returns the folders, the results by name, and what was printed.
    """
    d = {
        name: str(tmp_path_factory.mktemp(re.sub(r"\W+", "-", name)))
        for name in ("whole", "killed", "stopped", "bad", "changed", "ill", *ALONE, *TOGETHER, *DIVIDED)
    }
    todo = {
        "whole": dict(exp_dir=d["whole"]),
        "killed at 8": dict(exp_dir=d["killed"], die_at=8),  # batches, of 36; rank 1 has the even ones
        "killed at 19": dict(exp_dir=d["killed"], die_at=19),
        "killed in step 12": dict(exp_dir=d["killed"], die_in_backward=12),
        "killed, the end": dict(exp_dir=d["killed"]),
        "stopped at 10": dict(exp_dir=d["stopped"], die_at=10, die_signal=int(signal.SIGTERM)),
        "stopped at 27": dict(exp_dir=d["stopped"], die_at=27, die_signal=int(signal.SIGINT)),
        "stopped, the end": dict(exp_dir=d["stopped"]),
        "bad": dict(exp_dir=d["bad"], bad_steps=[4], unreadable_steps=[7, 9, 10, 24], num_epochs=2),
        "three": dict(exp_dir=d["changed"], ranks=3, max_steps=3),
        "then two": dict(exp_dir=d["changed"], ranks=2, num_epochs=1),
        "mistake": dict(exp_dir=d["ill"], mistake_at=2),
        "killed with norms": dict(exp_dir=d["ill"], die_in_backward=3, norm=1),
        "stuck": dict(exp_dir=d["ill"], die_at=4, die_signal=int(signal.SIGSTOP), dist_timeout=2.0),
        "stuck in step 3": dict(
            exp_dir=d["ill"], die_in_backward=3, die_signal=int(signal.SIGSTOP), dist_timeout=2.0
        ),
        **{name: dict(exp_dir=d[name], recipe="plain", **TOGETHER[name]) for name in TOGETHER},
        "divided, whole": dict(exp_dir=d["divided, whole"], **FSDP),
        "divided, killed at 8": dict(exp_dir=d["divided, killed"], die_at=8, **FSDP),
        "divided, killed in step 12": dict(exp_dir=d["divided, killed"], die_in_backward=12, **FSDP),
        "divided, the end": dict(exp_dir=d["divided, killed"], **FSDP),
        "divided, bad": dict(
            exp_dir=d["divided, bad"], bad_steps=[4], unreadable_steps=[7, 9, 10, 24], num_epochs=2, **FSDP
        ),
        "divided, recovering": dict(
            exp_dir=d["divided, recovering"],
            bad_steps=list(range(17, 25)),
            max_bad_batches=3,
            auto_recover=True,
            **FSDP,
        ),
        "divided, mistake": dict(exp_dir=d["divided, ill"], mistake_at=2, **FSDP),
        "divided, stuck in step 3": dict(
            exp_dir=d["divided, ill"],
            die_in_backward=3,
            die_signal=int(signal.SIGSTOP),
            dist_timeout=2.0,
            **FSDP,
        ),
        "divided to 7": dict(exp_dir=d["divided, then whole"], recipe="plain", max_steps=7, **FSDP),
        "divided, then whole": dict(exp_dir=d["divided, then whole"], recipe="plain"),
        "whole to 7": dict(exp_dir=d["whole, then divided"], recipe="plain", max_steps=7),
        "whole, then divided": dict(exp_dir=d["whole, then divided"], recipe="plain", **FSDP),
        "then one": dict(
            exp_dir=d["changed"], ranks=1, num_epochs=2
        ),  # these in the parent, so after all that fork from it
        **{
            name: dict(
                exp_dir=d[name], recipe="plain", ranks=1, max_duration=2.0 * options["joined"], **options
            )
            for name, options in ALONE.items()
        },
    }
    results, printed = attempts(*todo.values())
    return d, dict(zip(todo, results)), printed


@pytest.mark.parametrize(
    "alone, together",
    [
        ("two at once", "pair"),
        ("two at once, adam", "pair, adam"),
        ("three at once", "trio"),
        ("four at once", "pair, accumulating"),
        ("two at once", "pair, fp16"),
        ("two at once", "pair, divided"),
        ("two at once, adam", "pair, adam, divided"),
        ("three at once", "trio, divided"),
        ("four at once", "pair, accumulating, divided"),
        ("two at once", "divided, then whole"),
        ("two at once", "whole, then divided"),
    ],
)
def test_processes_train_like_one_with_all_their_batches(runs, alone, together):
    folders, results, _ = runs
    assert results[alone][0] == results[together][0] == 0
    one, many = records(folders[alone], "batch"), records(folders[together], "batch")
    joined = ALONE[alone]["joined"]
    assert sum(r["type"] == "train" for r in one) == 3 * fake_run.BATCHES // joined
    assert len(one) == len(many)
    digits = 2 if "fp16" in together else 4
    for a, b in zip(one, many):
        assert a.pop("type") == b.pop("type") and a == pytest.approx(b, rel=10**-digits)
    for key in ("model", "model_ema") if "adam" in alone else ("model",):
        a, b = weights(folders[alone], key=key), weights(folders[together], key=key)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=10**-digits, atol=10 ** -(digits + 1))
    if "adam" in alone:
        assert len({r["lr"] for r in one if "lr" in r}) == 9


def test_compression_changes_the_weights_a_little(runs):
    a, b = weights(runs[0]["pair"]), weights(runs[0]["pair, fp16"])
    assert not all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_run_ends_the_others_and_continues_exactly(runs):
    folders, results, _ = runs
    for run, rank in (
        ("killed at 8", 1), ("killed at 19", 0), ("killed in step 12", 1),
        ("divided, killed at 8", 1), ("divided, killed in step 12", 1),
    ):  # fmt: skip
        status, seconds, line = results[run]
        assert status == 1 and f"rank {rank} " in line and "was killed by SIGKILL" in line
        assert seconds < 30  # and not --dist-timeout, which is half an hour
    assert results["whole"][0] == results["killed, the end"][0] == 0
    assert records(folders["killed"]) == records(folders["whole"])
    assert_same_weights(folders["killed"], folders["whole"])
    assert results["divided, whole"][0] == results["divided, the end"][0] == 0
    for name, times in (("divided, whole", 1), ("divided, killed", 3)):
        assert (Path(folders[name]) / "log-1").read_text().count("is divided among 2 processes") == times
    assert records(folders["divided, killed"]) == records(folders["divided, whole"])
    assert_same_weights(folders["divided, killed"], folders["divided, whole"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_launcher_leaves_no_process(tmp_path):
    exp_dir = tmp_path / "exp"
    argv = [sys.executable, str(Path(fake_run.__file__).with_name("fake_ranks.py"))]
    argv.append(json.dumps({"exp_dir": str(exp_dir), "num_epochs": 100_000}))
    launcher = subprocess.Popen(
        argv, env=fake_run.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    try:
        wait_until(lambda: (exp_dir / "used-1").is_file(), seconds=100)
        assert len(group_of(launcher)) >= 3
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        wait_until(lambda: not group_of(launcher), seconds=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
    assert list(exp_dir.glob("checkpoint-*.pt")) and not list(exp_dir.glob(".*"))
    assert "Stopped by a signal" in (exp_dir / "log-0").read_text()


def test_a_signal_to_one_rank_stops_all_at_the_same_step(runs):
    folders, results, _ = runs
    assert results["stopped at 10"][0] == 143 and results["stopped at 27"][0] == 130
    assert (
        Path(folders["stopped"]) / "checkpoint-4.pt"
    ).is_file()  # rank 1 got the signal while it fetched batch 10, of step 5
    assert (Path(folders["stopped"]) / "checkpoint-13.pt").is_file()
    assert results["stopped, the end"][0] == 0
    assert records(folders["stopped"]) == records(folders["whole"])
    assert_same_weights(folders["stopped"], folders["whole"])


def assert_same_weights(one, other):
    a, b = read_whole(Path(one) / "epoch-3.pt"), read_whole(Path(other) / "epoch-3.pt")
    assert all(torch.equal(a[key][name], b[key][name]) for key in ("model", "model_avg") for name in b[key])
    assert len(a["other_ranks"]) == 1


@pytest.mark.parametrize("run", ["bad", "divided, bad"])
def test_a_bad_batch_of_one_rank_is_left_out_by_all(runs, run):
    folders, results, _ = runs
    assert results[run][0] == 0
    got = records(folders[run])
    steps = [(r["epoch"], r["batch"], r["batch_idx_train"]) for r in got if r["type"] == "train"]
    # batches 3 and 4 (step 2) are skipped because of 4; of 7 and 8 one remains, of 9 and 10 none,
    # which is no step; the last lacks one
    assert steps == [(1, 2, 1), (1, 6, 3), (1, 8, 4), (1, 12, 5), *((2, 2 * i, 5 + i) for i in range(1, 7))]
    assert [r["frames"] for r in got if r["type"] == "train"][:4] == [24, 24, 12, 24]
    assert got[-1]["skipped"] == 1
    for rank in (0, 1):
        log = (Path(folders[run]) / f"log-{rank}").read_text()
        assert "batch 2 is skipped, its loss is not finite (1 so far); cuts: cut-1-3-1" in log


def test_a_divided_run_goes_back_to_good_weights(runs):
    folders, results, _ = runs
    assert results["divided, recovering"][0] == 0
    for rank in (0, 1):
        log = (Path(folders["divided, recovering"]) / f"log-{rank}").read_text()
        assert "Recovery 1 of" in log and "back to" in log


def test_another_number_of_processes_continues_with_the_batches_that_are_left(runs):
    folders, results, _ = runs
    assert [results[run][0] for run in ("three", "then two", "then one")] == [0, 0, 0]
    used = [
        line for rank in range(3) for line in (Path(folders["changed"]) / f"used-{rank}").read_text().split()
    ]
    assert sorted(used) == sorted(
        f"cut-{epoch}-{index}-0" for epoch in (1, 2) for index in range(fake_run.BATCHES)
    )
    steps = [(r["epoch"], r["batch"]) for r in records(folders["changed"]) if r["type"] == "train"]
    assert steps == [(1, 3), (1, 6), (1, 9), (1, 11), (1, 13), *((2, i) for i in range(1, 13))]
    log = (Path(folders["changed"]) / "log-1").read_text()
    assert "2 processes continue what 3 began: epoch 1 goes on after its first 9 batches" in log
    state = read_whole(Path(folders["changed"]) / "epoch-2.pt")[
        "train_state"
    ]  # 3 steps of 3, 2 of 2, 12 of 1
    assert (
        state["count_before"] + (state["batch_idx_train"] - state["count_from"]) * state["count_rate"]
        == 9 + 4 + 12
    )


def test_a_rank_that_is_lost_is_no_fault_of_a_batch(runs):
    folders, results, printed = runs
    status, seconds, line = results["killed with norms"]  # while another waits for its statistics
    assert status == 1 and "rank 1 " in line and "was killed by SIGKILL" in line and seconds < 30
    assert not list(Path(folders["ill"]).glob("bad-batch*")) and "Traceback" not in printed


def test_a_mistake_in_one_rank_is_printed_once_and_ends_all(runs):
    _, results, printed = runs
    for run in ("mistake", "divided, mistake"):
        assert results[run][0] == 1 and results[run][2] == ""
    assert printed.count("what one rank does not like") == printed.count("error:") == 2


@pytest.mark.parametrize("run", ["stuck", "stuck in step 3", "divided, stuck in step 3"])
def test_a_rank_that_hangs_is_named_and_ended_with_the_others(runs, run):
    status, seconds, line = runs[1][run]
    assert status == 1 and "rank 1 " in line and "did not answer the others in time (--dist-timeout)" in line
    assert seconds < 30

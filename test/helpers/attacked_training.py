"""Training runs of the real program that accidents end, and the comparison of what they leave."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_run
import torch
import train_script
from fake_run import records
from tiny_program import arguments

from asr_core.training.checkpoint import read_whole

EPOCHS = 4
OPTIONS = ("--num-epochs", str(EPOCHS), "--save-every-n", "3", "--valid-interval", "5")


def command(prepared, exp_dir, *more):
    """Return the command line that trains for a few seconds."""
    return [sys.executable, train_script.__file__, *arguments(prepared, exp_dir), *OPTIONS, *more]


def finish(prepared, exp_dir, *more):
    """Train to the end, and return what the program printed on standard error."""
    done = subprocess.run(
        command(prepared, exp_dir, *more),
        env=fake_run.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def train_and_kill(prepared, exp_dir, when, more=(), kill=None):
    """Start training and kill it; return whether it was killed before its end.

    Args:
      prepared: folder of data.
      exp_dir: folder of the run.
      when: called with the lines printed so far and the seconds since the first step, which are
        negative before it; says whether the moment has come.
      more: further options.
      kill: called with the process; by default it kills the program and all its children.
    """
    log = exp_dir.with_suffix(".log")
    with open(log, "w") as printed:
        run = subprocess.Popen(
            command(prepared, exp_dir, *more),
            env=fake_run.environment(),
            stderr=printed,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    began, first = time.monotonic(), None
    try:
        while run.poll() is None:
            assert time.monotonic() - began < 180, log.read_text()
            text = log.read_text()
            if first is None and ", batch " in text:
                first = time.monotonic()
            if when(text, time.monotonic() - first if first else -1.0):
                (kill or kill_group)(run)
                run.wait(timeout=60)
                return True
            time.sleep(0.002)
        assert run.returncode == 0, log.read_text()
        return False
    finally:
        kill_group(run)


def kill_group(run):
    """Kill a process, which leads a session, and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def assert_same_result(exp_dir, whole):
    """Check that a run that was disturbed has the records and the weights of ``whole``."""
    assert records(exp_dir) == records(whole)
    a, b = (read_whole(Path(d) / f"epoch-{EPOCHS}.pt") for d in (exp_dir, whole))
    for key in ("model", "model_avg", *(["model_ema"] if "model_ema" in b else [])):
        assert all(torch.equal(a[key][name], b[key][name]) for name in b[key]), key
    left = [p.name for p in Path(exp_dir).rglob(".*") if ".tmp" in p.name]
    assert not left, left

"""Preparation compiles kernels in the background, without waiting for them or depending on them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from asr_core.utils.processes import process_id

LIBRARY = Path(__file__).resolve().parents[2] / "egs" / "shared" / "prepare_lib.sh"
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"import asr_core;"*) echo "$PWD/package" ;;
  *compile_kernels*) echo noise; echo noise >&2; [ ! -e broken ] || exit 1; echo $$ > compiling; exec sleep 60 ;;
esac
"""
PREPARE = """
stage=0; stop_stage=1; nj=1; help_message=
. "$LIBRARY"
parse_options
if [ -n "${WAIT:-}" ]; then until [ -s compiling ]; do sleep 0.02; done; fi
"""


def run(folder, end, kill=None, **environment):
    """Run a preparation whose last lines are ``end``; return its status and what it printed."""
    (folder / "prepare.sh").touch()
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "ASR_", "XDG"))
    }
    variables.update(LIBRARY=str(LIBRARY), PYTHON=str(folder / "python"), HOME=str(folder), **environment)
    run = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", PREPARE + end],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if kill:
        while not (folder / "waiting").exists():
            time.sleep(0.02)
        kill(run.pid)
    told, _ = run.communicate(timeout=30)
    assert "noise" not in told
    return run.returncode, told


def is_compiling(folder, seconds=10):
    """Whether the compilation goes on; it is given ``seconds`` to end."""
    process = process_id(int((folder / "compiling").read_text()))
    deadline = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.is_alive()


def test_it_goes_on_when_the_preparation_is_done(tmp_path):
    begin = time.monotonic()
    status, told = run(tmp_path, "finish", WAIT="1")
    assert status == 0 and time.monotonic() - begin < 30
    assert told.count("\n") == 2 and "compiled in the background\n" in told and told.endswith(" Done.\n")
    try:
        assert is_compiling(tmp_path, 1)
    finally:
        os.kill(int((tmp_path / "compiling").read_text()), signal.SIGKILL)


STOPS = {
    "failure": ("false\nfinish", None, 1),
    "refusal": ("fail 'no data'", None, 1),
    "SIGTERM": (
        ": > waiting; sleep 5 > /dev/null 2>&1; finish",
        lambda pid: os.kill(pid, signal.SIGTERM),
        -signal.SIGTERM,
    ),
    "Ctrl-C": (
        ": > waiting; sleep 5 > /dev/null 2>&1; finish",
        lambda pid: os.killpg(pid, signal.SIGINT),
        -signal.SIGINT,
    ),
}


@pytest.mark.parametrize("end, kill, status", STOPS.values(), ids=STOPS)
def test_it_ends_with_a_preparation_that_does_not_come_to_its_end(end, kill, status, tmp_path):
    assert run(tmp_path, end, kill, WAIT="1")[0] == status
    assert not is_compiling(tmp_path)


def test_the_preparation_does_not_need_it(tmp_path):
    (tmp_path / "broken").touch()
    status, told = run(tmp_path, "sleep 0.2; finish")
    assert status == 0 and told.endswith(" Done.\n")


@pytest.mark.parametrize("cache", ["package/ops/cpu/__pycache__", ".cache/numba/cpu_1", "mine/cpu_1"])
def test_it_is_not_started_where_kernels_are_compiled(cache, tmp_path):
    (tmp_path / cache).mkdir(parents=True)
    (tmp_path / cache / "kernel.nbi").touch()
    environment = {"NUMBA_CACHE_DIR": "mine"} if "mine" in cache else {}
    _, told = run(tmp_path, "finish", **environment)
    assert told.count("\n") == 1 and not (tmp_path / "compiling").exists()


def test_a_script_within_a_script_leaves_it_to_the_outer_one(tmp_path):
    _, told = run(tmp_path, "finish", ASR_CORE_SCRIPT="1")
    assert told.count("\n") == 1 and not (tmp_path / "compiling").exists()

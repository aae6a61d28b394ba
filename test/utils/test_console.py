"""Programs whose console goes away: the log file is the record."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, os, sys
from pathlib import Path
from asr_core.cli.program import run_program
from asr_core.utils.console import outlive_output
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger

def body():
    if sys.argv[1] != "output":
        setup_logger(Path("log/log"))
        outlive_output()
    for i in range(3):
        logging.info("line %d " + "x" * 70000, i)
        print("result", i, "x" * 70000, flush=i == 1)
        assert sys.stdout.encoding and sys.stderr.isatty() is False
    Path("result").write_text("done")
    if sys.argv[1] == "mistake":
        raise UserError("the reason")
    if sys.argv[1] == "fault":
        raise ValueError("the fault")

run_program(body)
"""


def run(folder, kind, stdout, stderr):
    """Run the program in ``folder``; return its exit status and what it logged."""
    shell = f'exec "$0" -c "$1" {kind} {stdout} {stderr}'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", shell, sys.executable, PROGRAM], cwd=folder, env=env, timeout=60)
    return done.returncode, "".join(path.read_text() for path in sorted(folder.glob("log/*")))


GONE = {
    "full": (">/dev/full", "2>/dev/full", "No space left on device"),
    "closed": (">&-", "2>&-", "it is closed"),
}


@pytest.mark.parametrize("how", GONE)
def test_a_program_with_a_log_file_outlives_its_console(tmp_path, how):
    stdout, stderr, why = GONE[how]
    status, log = run(tmp_path, "work", stdout, stderr)
    assert status == 0 and (tmp_path / "result").read_text() == "done"
    assert [f"line {i} " in log for i in range(3)] == [True] * 3
    assert f"standard error is gone ({why}): from here on, this file alone" in log
    assert f"standard output is gone ({why})" in log


def piped(folder, kind):
    """Run the program with both streams in a pipe that nobody reads; return as :func:`run`."""
    script = f'{{ "$0" -c "$1" {kind} 2>&1; echo $? > status; }} | true'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-c", script, sys.executable, PROGRAM], cwd=folder, env=env, timeout=60)
    log = "".join(path.read_text() for path in sorted(folder.glob("log/*")))
    return int((folder / "status").read_text()), log


def test_it_outlives_the_reader_of_its_pipe(tmp_path):
    status, log = piped(tmp_path, "work")
    assert status == 0 and (tmp_path / "result").read_text() == "done"
    assert "standard error is gone (Broken pipe)" in log and "line 2 " in log


@pytest.mark.parametrize("kind, last", [("mistake", "error: the reason"), ("fault", "ValueError: the fault")])
def test_the_log_file_says_why_it_ended(tmp_path, kind, last):
    status, log = piped(tmp_path, kind)
    assert status == 1 and log.rstrip().endswith(last)


def test_a_program_whose_output_is_its_purpose_ends_with_its_reader(tmp_path):
    assert piped(tmp_path, "output")[0] == 141
    assert not (tmp_path / "result").exists()


def test_output_that_cannot_be_written_is_an_error(tmp_path):
    assert run(tmp_path, "output", ">/dev/full", "2>said")[0] == 1
    assert (
        tmp_path / "said"
    ).read_text() == "error: cannot write to standard output: No space left on device\n"

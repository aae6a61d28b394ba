"""The training program in several processes, with and without torchrun."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import train_script
from fake_run import records
from process_groups import group_of, wait_until
from tiny_program import arguments

from asr_core.training.distributed.launch import free_port


@contextlib.contextmanager
def program(prepared, exp_dir, *launcher_and_more):
    """Run the training program on real data, in a process group that has to be empty in the end."""
    argv = [train_script.__file__ if word == "TRAIN" else word for word in launcher_and_more]
    argv += arguments(prepared, exp_dir)
    run = subprocess.Popen(
        argv, env=fake_run.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield run
        wait_until(lambda: not group_of(run))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_program_spawns_stops_and_continues_under_torchrun(prepared, tmp_path):
    exp_dir = tmp_path / "exp"
    with socket.socket() as s:  # icefall's port is taken, by this or by another program
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            s.bind(("127.0.0.1", 12354))
            s.listen()
        with program(
            prepared,
            exp_dir,
            sys.executable,
            "TRAIN",
            "--world-size",
            "2",
            "--num-workers",
            "1",
            "--num-epochs",
            "500",
        ) as run:
            lines = []
            for line in run.stderr:
                lines.append(line)
                if "Epoch 2, batch 1" in line or len(lines) > 100:
                    break
            assert len(group_of(run)) >= 5, "".join(lines)  # the program, two ranks, a loader each
            run.send_signal(signal.SIGTERM)
            rest = run.communicate(timeout=60)[1]
            assert run.returncode == 143, rest
    assert "Stopped by a signal" in rest
    saved = sorted(exp_dir.glob("checkpoint-*.pt"))
    assert len(saved) == 1 and json.loads((exp_dir / "params.json").read_text())["world_size"] == 2
    assert sorted(path.name[-2:] for path in (exp_dir / "log").iterdir()) == ["-0", "-1"]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    with program(prepared, exp_dir, *torchrun, "TRAIN", "--num-workers", "0", "--num-epochs", "3") as run:
        printed = run.communicate(timeout=90)[1]
        assert run.returncode == 0, printed
    assert printed.count(f"Continuing from {saved[0]}") == 1 and (exp_dir / "epoch-3.pt").is_file()
    got = [(r["epoch"], r["batch_idx_train"]) for r in records(exp_dir) if r["type"] == "train"]
    assert [n for _, n in got] == list(range(1, len(got) + 1)) and got[-1][0] == 3

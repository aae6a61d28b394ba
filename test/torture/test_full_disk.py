"""Programs whose disk fills up end with one line and leave nothing half-written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
from attacked_training import assert_same_result, command, finish

pytestmark = pytest.mark.slow

CANNOT_MOUNT = subprocess.run(
    ["unshare", "-rm", "true"] if shutil.which("unshare") else ["false"], capture_output=True
).returncode


def on_small_disk(kilobytes, disk, results, argv):
    """Run ``argv`` with a disk of ``kilobytes`` at ``disk``, and copy what it holds to ``results``.

    What ``results`` holds already is on the disk from the start.
    """
    script = (
        f'mount -t tmpfs -o size={kilobytes}k tmpfs "$1" && cp -a "$2/." "$1/" && shift 2 && "$@"; status=$?; '
        f"cp -a {disk}/. {results}/; exit $status"
    )
    for folder in (disk, results):
        folder.mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), str(results), *argv],
        env=fake_run.environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )


def one_line(done):
    """Check that a program ended with an error of one line, and return the line."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") or ": error: " in last, done.stderr
    return last


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """A run that nobody disturbed."""
    exp_dir = tmp_path_factory.mktemp("undisturbed")
    finish(prepared, exp_dir)
    return exp_dir


@pytest.mark.skipif(CANNOT_MOUNT, reason="needs a user namespace for a small disk")
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99])
def test_training(prepared, undisturbed, tmp_path, share):
    """The disk is full at the start, in the middle of a checkpoint, or shortly before the end."""
    needed = sum(p.stat().st_size for p in undisturbed.rglob("*") if p.is_file()) // 1024
    disk, exp_dir = tmp_path / "disk", tmp_path / "exp"
    done = on_small_disk(4 + int(needed * share), disk, exp_dir, command(prepared, disk))
    if done.returncode != 0:  # hard links may save the space that is missing
        assert "no space left" in one_line(done).lower()
    assert not [p for p in exp_dir.rglob("*.tmp*")]
    for path in exp_dir.glob("params.json"):
        json.loads(path.read_text())
    finish(prepared, exp_dir)
    assert_same_result(exp_dir, undisturbed)


@pytest.mark.skipif(CANNOT_MOUNT, reason="needs a user namespace for a small disk")
@pytest.mark.parametrize("kilobytes", [0, 8, 64, 256])
@pytest.mark.parametrize("program", ["compute_fbank", "write_shar", "write_transcripts", "train_tokenizer"])
def test_preparation(prepared, tmp_path, program, kilobytes):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    train = prepared / "tiny_cuts_train.jsonl.gz"
    options = {
        "compute_fbank": f"--src-dir {prepared} --output-dir {disk} --prefix tiny --parts train",
        "write_shar": f"--cuts {train} --shar-dir {disk / 'shar'} --data audio",
        "write_transcripts": f"--output {disk / 'text'} {train}",
        "train_tokenizer": f"--lang-dir {disk} --transcript {prepared / 'text'} --vocab-size 14",
    }
    argv = [sys.executable, "-m", f"asr_core.bin.{program}", *options[program].split()]
    done = on_small_disk(max(kilobytes, 4), disk, kept, argv)
    if done.returncode != 0:
        assert "space" in one_line(done).lower()
        whole = ("tiny_cuts_train.jsonl.gz", ".shar.shar.done", "text", "bpe.model", "tokens.txt")
        finals = [p for p in kept.rglob("*") if p.name in whole]
        assert not finals, finals
    assert not [p for p in kept.rglob("*.tmp*") if p.is_file()]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_console_is_a_full_disk(prepared, undisturbed, tmp_path, stream):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    exp_dir = tmp_path / "exp"
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: full}
        done = subprocess.run(command(prepared, exp_dir), env=fake_run.environment(), timeout=900, **streams)
    assert done.returncode == 0
    assert_same_result(exp_dir, undisturbed)

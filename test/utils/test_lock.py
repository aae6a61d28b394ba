"""Locks of folders: refused, taken over, lost, given back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from asr_core.utils import lock as locks
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, remove_leftovers
from asr_core.utils.lock import FolderLock, Holder, check_folder, hold_folder, read_holder
from asr_core.utils.processes import process_id

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, seconds in (("PATIENCE", 0.3), ("POLL", 0.02), ("SILENCE", 0.6), ("HEARTBEAT", 0.05)):
        monkeypatch.setattr(locks, f"_{name}_SECONDS", seconds)


@pytest.fixture
def sleeper():
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def leave_lock(folder, process):
    """Write the lock of another process into ``folder``."""
    holder = Holder("theirs", "training", 1.0e9, process)
    (folder / ".lock").write_text(json.dumps(asdict(holder)))


def try_to_hold(folder):
    with hold_folder(folder, "training", "choose another --exp-dir"):
        return read_holder(folder / ".lock")


def test_a_held_folder_is_refused_with_its_holder(tmp_path, sleeper):
    leave_lock(tmp_path, process_id(sleeper.pid))
    with pytest.raises(UserError) as raised:
        try_to_hold(tmp_path)
    line = str(raised.value)
    assert f"{tmp_path} is in use by training, process {sleeper.pid} on " in line and "since 2001-09-" in line
    assert line.endswith("wait for its end, or end it, or choose another --exp-dir")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    sleeper.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="it is suspended: let it go on, or end it, or"):
        try_to_hold(tmp_path)


def test_the_lock_of_a_dead_process_is_taken_over_at_once(tmp_path, sleeper, caplog):
    caplog.set_level("INFO")
    leave_lock(tmp_path, process_id(sleeper.pid))
    sleeper.kill()
    sleeper.wait()
    assert try_to_hold(tmp_path).process == process_id()
    assert f"the lock of training, process {sleeper.pid} on" in caplog.text
    assert not list(tmp_path.iterdir())


def test_another_process_with_the_same_number_does_not_count(tmp_path, sleeper):
    leave_lock(tmp_path, replace(process_id(sleeper.pid), start=1))
    assert try_to_hold(tmp_path).process == process_id()


def test_a_holder_that_ends_soon_is_waited_for(tmp_path, sleeper):
    leave_lock(tmp_path, process_id(sleeper.pid))
    threading.Timer(0.1, sleeper.kill).start()
    threading.Timer(0.15, sleeper.wait).start()
    assert try_to_hold(tmp_path).process == process_id()


def test_a_holder_on_another_machine_lives_by_its_heartbeat(tmp_path):
    elsewhere = replace(process_id(), host="elsewhere", space="another boot")
    leave_lock(tmp_path, elsewhere)
    beats = threading.Event()

    def beat():
        while not beats.wait(0.05):
            os.utime(tmp_path / ".lock")

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="in use by training, process .* on elsewhere"):
            try_to_hold(tmp_path)
    finally:
        beats.set()
        thread.join()
    began = time.monotonic()
    assert try_to_hold(tmp_path).process == process_id()  # now it is silent
    assert time.monotonic() - began > 0.3
    leave_lock(tmp_path, elsewhere)
    os.utime(tmp_path / ".lock", (1.0e9, 1.0e9))
    began = time.monotonic()
    assert try_to_hold(tmp_path).process == process_id()  # it has been silent for long
    assert time.monotonic() - began < 0.3


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"token": 1}'])
def test_garbage_in_the_lock_does_not_hold_for_ever(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    assert try_to_hold(tmp_path).process == process_id()


def test_the_lock_shows_life_and_is_held_once(tmp_path):
    with hold_folder(tmp_path, "training", ""):
        os.utime(tmp_path / ".lock", (1.0, 1.0))
        with hold_folder(tmp_path, "training", ""):
            check_folder(tmp_path)
        check_folder(tmp_path)
        end = time.monotonic() + 5
        while (tmp_path / ".lock").stat().st_mtime == 1.0:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert not list(tmp_path.iterdir())
    check_folder(tmp_path)  # nothing is held, so nothing can be lost


def test_a_process_that_lost_its_lock_notices_and_leaves_that_of_its_successor(tmp_path, sleeper):
    with hold_folder(tmp_path, "training", ""):
        leave_lock(tmp_path, process_id(sleeper.pid))
        with pytest.raises(UserError, match="was taken over by training, process .* writes nothing more"):
            check_folder(tmp_path)
        (tmp_path / "file").write_text("of the successor")
        with pytest.raises(UserError, match="was taken over by"), atomic_path(tmp_path / "file") as tmp:
            tmp.write_text("late")
        assert (tmp_path / "file").read_text() == "of the successor" and len(list(tmp_path.iterdir())) == 2
    assert read_holder(tmp_path / ".lock").token == "theirs"
    (tmp_path / ".lock").unlink()
    with hold_folder(tmp_path, "training", ""):
        (tmp_path / ".lock").unlink()
        with pytest.raises(UserError, match="was removed, while"):
            check_folder(tmp_path)


def test_only_one_of_many_gets_the_lock_of_a_dead_one(tmp_path):
    leave_lock(tmp_path, replace(process_id(), start=1))
    got, refused = [], []

    def attempt():
        lock = FolderLock(tmp_path, "training", "")
        try:
            lock.acquire()
            got.append(lock)
        except UserError:
            refused.append(lock)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holders = [lock for lock in got if lock._is_mine()]
    assert len(holders) == 1 and len(got) + len(refused) == 8
    for lock in got:
        if lock not in holders:
            with pytest.raises(UserError):
                lock.check()


def test_without_hard_links_a_lock_is_created_exclusively(tmp_path, monkeypatch, sleeper):
    def no_link(source, target):
        raise PermissionError(1, "not supported")

    monkeypatch.setattr(os, "link", no_link)
    assert try_to_hold(tmp_path).process == process_id()
    leave_lock(tmp_path, process_id(sleeper.pid))
    with pytest.raises(UserError, match="is in use by"):
        try_to_hold(tmp_path)


def test_temporary_files_of_live_writers_stay(tmp_path, sleeper):
    with atomic_path(tmp_path / "epoch-1.pt") as mine:
        tag = mine.name.split(".")[3] if "epoch-1.pt" in mine.name else mine.name.split(".")[2]
        pid, start, space = tag.split("-")
        assert int(pid) == os.getpid()
        dead = tmp_path / mine.name.replace(tag, f"{pid}-1-{space}")
        elsewhere = tmp_path / mine.name.replace(space, "00000000")
        old = tmp_path / ".epoch-2.abc.tmp.pt"
        for path in (dead, elsewhere, old):
            path.write_bytes(b"half")
        os.utime(old, (1.0, 1.0))
        remove_leftovers(tmp_path)
        assert mine.exists() and elsewhere.exists() and not dead.exists() and not old.exists()
        os.utime(elsewhere, (1.0, 1.0))
        remove_leftovers(tmp_path)
        assert not elsewhere.exists()


def test_a_shell_script_holds_a_lock_until_it_ends(tmp_path):
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = f"""
      python={sys.executable}
      . {ROOT}/egs/shared/prepare_lib.sh
      lock_folder {tmp_path}/data
      echo held
      [ "$1" = die ] && kill -KILL $$
      cat
    """
    argv = ["bash", "-c", script, "prepare"]
    first = subprocess.Popen([*argv, ""], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    code = (
        "import asr_core.utils.lock as l; l._PATIENCE_SECONDS = 0.3\n"
        f"l.keep_for_script('{tmp_path}/data', {os.getpid()}, 'choose another --data-dir')"
    )
    second = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert f"in use by preparation, process {first.pid} on" in second.stderr
    first.communicate("")
    assert first.returncode == 0 and not (tmp_path / "data" / ".lock").exists()
    assert subprocess.run([*argv, "die"], env=env, stdout=subprocess.DEVNULL).returncode == -9
    assert (
        subprocess.run([*argv, ""], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
        == 0
    )

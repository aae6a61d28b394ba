"""Preparation into a place where another process prepares: refused, and nothing is touched."""

import importlib
import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from asr_core.data.manifest import make_cut, write_cuts
from asr_core.utils import lock as locks
from asr_core.utils.lock import Holder, hold_output, read_holder
from asr_core.utils.processes import process_id


@pytest.fixture
def other():
    """A process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


# program, what it locks, options
PROGRAMS = [
    (
        "compute_fbank",
        "out/.x_cuts_test.jsonl.gz.lock",
        "--src-dir . --output-dir out --prefix x --parts test",
    ),
    ("write_shar", ".shar.lock", "--cuts cuts.jsonl.gz --shar-dir shar/"),
    ("prepare_tsv", "out/.custom_cuts.lock", "--test list.tsv --output-dir out"),
    (
        "prepare_lm_data",
        "out/.lm_data.pt.lock",
        "--bpe-model list.tsv --lm-data list.tsv --lm-archive out/lm_data.pt",
    ),
    ("prepare_lang", "out/.lock", "--lang-dir out"),
    ("prepare_lang_bpe", "out/.lock", "--lang-dir out"),
    ("train_tokenizer", "out/.lock", "--lang-dir out --transcript list.tsv"),
]


@pytest.mark.parametrize("program, lock, argv", PROGRAMS, ids=[program for program, _, _ in PROGRAMS])
def test_the_second_writer_is_refused(tmp_path, monkeypatch, capsys, other, program, lock, argv):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.1)
    write_cuts([make_cut("a", "a.wav", 16000, 16000, "A")], "cuts.jsonl.gz")
    (tmp_path / "list.tsv").write_text("a.wav\tA\n")
    (tmp_path / "out").mkdir()
    holder = Holder("theirs", "an earlier preparation", 1.0e9, process_id(other.pid))
    (tmp_path / lock).write_text(json.dumps(asdict(holder)))
    before = sorted(tmp_path.rglob("*"))
    module = importlib.import_module(f"asr_core.bin.{program}")
    with pytest.raises(SystemExit) as ended:
        module.main(argv=argv.split())
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and last.startswith("error: ")
    assert f"is in use by an earlier preparation, process {other.pid} on" in last
    assert "wait for its end, or end it, or choose another --" in last
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_that_another_process_finished_meanwhile_is_not_computed_again(tmp_path, monkeypatch, capsys):
    from asr_core.data import compute
    from asr_core.data.preparation_options import FbankOptions

    target = tmp_path / "cuts_test.jsonl.gz"

    class Waited:
        def __enter__(self):
            target.write_text("of the other process")

        def __exit__(self, *args):
            return None

    monkeypatch.setattr(compute, "hold_output", lambda *args: Waited())
    compute.compute_parts(FbankOptions(src_dir=str(tmp_path), output_dir=str(tmp_path), parts=("test",)))
    assert target.read_text() == "of the other process"


def test_the_lock_of_an_output_is_beside_it(tmp_path):
    with hold_output(tmp_path / "shar", "writing", ""), hold_output(tmp_path / "a.gz", "writing", ""):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.gz.lock", ".shar.lock"]
        assert read_holder(tmp_path / ".shar.lock").process == process_id()
        with hold_output(tmp_path / "shar", "again", ""), hold_output("/dev/null", "a device", ""):
            pass
    assert not list(tmp_path.iterdir())

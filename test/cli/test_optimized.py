"""Programs under ``python -OO``, which drops docstrings and runs no assert statements."""

import subprocess
import sys

import fake_run
import train_script
from prepared_folder import write_prepared
from tiny_program import arguments

HELP = """
import contextlib, importlib, inspect, io, pkgutil, re
import asr_core.bin
from recipe_programs import STUBS, run_here

def check(name, program):
    told, status = io.StringIO(), None
    with contextlib.redirect_stdout(told):
        try:
            program()
        except SystemExit as ended:
            status = ended.code
    text = told.getvalue()
    if status != 0 or "usage: " not in text or re.search(r"^\\w+Options\\(", text, re.M):
        raise SystemExit(f"{name} --help: status {status}, {text}")

mains = {}
for found in pkgutil.iter_modules(asr_core.bin.__path__):
    main = getattr(importlib.import_module(f"asr_core.bin.{found.name}"), "main", None)
    if main and "corpus" not in inspect.signature(main).parameters:
        mains[found.name] = main
for name, main in mains.items():
    check(name, lambda: main(argv=["--help"]))
for path in STUBS:
    check(path, lambda: run_here(path, "--help"))
print(len(mains), len(STUBS))
"""
OTHER_PROGRAMS = """
import sys
from asr_core.bin import decode, export, transcribe
from tiny_program import Tiny

exp_dir, data = sys.argv[1:]
Tiny.test_parts = {"valid": "valid"}
chosen = ["--exp-dir", exp_dir, "--epoch", "1", "--avg", "1"]
model = [*chosen, "--use-averaged-model", "0"]
decode.main(Tiny, argv=[
    *model, "--manifest-dir", data, "--on-the-fly-feats", "1", "--decoding-method", "modified_beam_search"
])
export.main(argv=[*model, "--jit", "1", "--chunk-size", "16", "--left-context-frames", "64"])
transcribe.main(argv=["--model", f"{exp_dir}/jit_script_chunk_16_left_64.pt", f"{data}/3.wav"])
"""


def optimized(*command):
    """Run a command of Python under -OO; return what it printed on standard output."""
    environment = {**fake_run.environment(), "PYTHONOPTIMIZE": "2"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_all_programs():
    of_library, of_recipes = map(int, optimized("-c", HELP.replace("\\", "\\")).split())
    assert of_library > 30 and of_recipes > 60


def test_training_decoding_export_and_transcription(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_prepared(data)
    exp_dir = tmp_path / "exp"
    optimized(train_script.__file__, *arguments(data, exp_dir), "--num-epochs", 1)
    said = optimized("-c", OTHER_PROGRAMS, exp_dir, data)
    assert list(exp_dir.glob("modified_beam_search/wer-summary-valid-*.txt"))
    assert f"{data}/3.wav" in said

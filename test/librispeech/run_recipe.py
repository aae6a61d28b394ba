"""Running the recipe's programs as a user does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[2] / "egs/librispeech/ASR"


def run(program, *arguments):
    """Run ``./<program>.py``, e.g. zipformer/train, with this interpreter in the recipe's folder; returns its standard output."""
    env = {
        **os.environ,
        "PYTHONPATH": str(RECIPE.parents[2]),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    command = [sys.executable, f"./{program}.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=RECIPE, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_results(folder, kind_and_set, num_utterances):
    """Each test set has transcripts of all its utterances, errors and a summary."""
    for name in ("test-clean", "test-other"):
        (recogs,) = folder.glob(f"recogs-{name}{kind_and_set}*.txt")
        lines = recogs.read_text().splitlines()
        assert len(lines) == 2 * num_utterances
        for ref, hyp in zip(lines[::2], lines[1::2]):
            assert ast.literal_eval(ref.split(":\tref=")[1]) and isinstance(
                ast.literal_eval(hyp.split(":\thyp=")[1]), list
            )
        (errs,) = folder.glob(f"errs-{name}{kind_and_set}*.txt")
        assert re.match(r"%WER = \d+\.\d+\nErrors: \d+ insertions", errs.read_text())
        (summary,) = folder.glob(f"wer-summary[-_]{name}{kind_and_set}*.txt")
        assert re.fullmatch(r"settings\tWER\n\S+\t[\d.]+\n", summary.read_text())

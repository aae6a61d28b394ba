"""LibriSpeech's recipe on miniature corpora: preparation, programs, and checks of results."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mini_librispeech import make_mini_librispeech, make_mini_musan

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/librispeech/ASR"
VOCAB = 60  # tokens that so little text allows


def _run(command, status, timeout):
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **threads}
    command = list(map(str, command))
    done = subprocess.run(
        command, cwd=RECIPE, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def run(program, *arguments):
    """Run ``./<program>.py``, e.g. zipformer/train, with this interpreter; return its output."""
    return _run([sys.executable, f"./{program}.py", *arguments], 0, 300).stdout


def run_prepare(*arguments, status=0, timeout=600):
    """Run prepare.sh with this interpreter; return its output and messages."""
    done = _run(["bash", "./prepare.sh", *arguments], status, timeout)
    return done.stdout + done.stderr


def lay_out(root, counts):
    """Lay out the corpora under ``root``; skip the test without synthesised or other speech.

    Returns the transcripts by part.
    """
    audio = os.environ.get("MINI_LIBRISPEECH_AUDIO")
    if not audio:
        pytest.importorskip(
            "espeakng_loader", reason="needs espeakng-loader, or recordings in $MINI_LIBRISPEECH_AUDIO"
        )
    texts = make_mini_librispeech(root, counts, Path(audio) if audio else None)
    make_mini_musan(root)
    return texts


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

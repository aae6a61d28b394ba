"""A miniature LibriSpeech, laid out and prepared once a session."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs/librispeech/ASR"
sys.path.insert(0, str(Path(__file__).parent))  # for make_mini_librispeech

VOCAB = 60  # tokens that so little text allows


def run_prepare(*arguments, status=0, timeout=600):
    """Run the recipe's prepare.sh with this interpreter; returns what it printed."""
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    command = ["bash", "./prepare.sh", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=RECIPE, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def lay_out(root, counts):
    """The corpora under ``root``; skips the test where speech can be neither synthesised nor taken from elsewhere."""
    from make_mini_librispeech import make_mini_librispeech, make_mini_musan

    audio = os.environ.get("MINI_LIBRISPEECH_AUDIO")
    if not audio:
        pytest.importorskip(
            "espeakng_loader", reason="needs espeakng-loader, or recordings in $MINI_LIBRISPEECH_AUDIO"
        )
    texts = make_mini_librispeech(root, counts, Path(audio) if audio else None)
    make_mini_musan(root)
    return texts


@pytest.fixture(scope="session")
def mini_librispeech(tmp_path_factory):
    """All parts of a miniature LibriSpeech and MUSAN after ``prepare.sh --stage 1 --stop-stage 5``.

    Attributes: ``dl_dir`` (the corpora), ``data_dir``, ``manifest_dir`` (features), ``lang_dir``, ``texts`` (transcripts by part),
    ``arguments`` (of prepare.sh, to go on with later stages).
    """
    from make_mini_librispeech import FULL_PARTS

    dl_dir = tmp_path_factory.mktemp("mini_librispeech")
    counts = {part: 24 if part.startswith("train") else 4 for part in FULL_PARTS}
    texts = lay_out(dl_dir, counts)
    data_dir = dl_dir / "data"
    arguments = ["--dl-dir", dl_dir, "--data-dir", data_dir, "--vocab-sizes", VOCAB, "--nj", 2]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 5)
    return SimpleNamespace(
        dl_dir=dl_dir,
        data_dir=data_dir,
        manifest_dir=data_dir / "fbank",
        lang_dir=data_dir / f"lang_bpe_{VOCAB}",
        texts=texts,
        arguments=arguments,
    )

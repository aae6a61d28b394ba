"""Runs, models and results that version 0.1 wrote are read as that version read them.

See `test/golden/files_of_0_1/README.md` for the files.
"""

import functools
import json
from pathlib import Path

import kept_files
import numpy as np
import pytest
from kept_doors import run
from kept_files import EXPECTED, WHERE, assert_alike

from asr_core.decoding import encoding
from asr_core.encoders.zipformer.encoder import Zipformer2
from asr_core.nn.subsampling import Conv2dSubsampling

FILES = [(encoder, kind) for encoder, (_, kinds) in kept_files.RUNS_OF.items() for kind in kinds]


@pytest.fixture(autouse=True)
def ends_of_utterances_as_in_0_1(monkeypatch):
    """In version 0.1 the last frames of an utterance depended on what follows it in a batch, and the
    look-ahead of its last chunk did not count as a part of it.
    """
    for module in (Zipformer2, Conv2dSubsampling):
        monkeypatch.setattr(module, "__init__", functools.partialmethod(module.__init__, mask_padding=False))
    pad = encoding.pad_for_encoder

    def pad_as_in_0_1(x, x_lens, causal, chunk_size, geometry):
        out, lens = pad(x, x_lens, causal, chunk_size, geometry)
        chunked = causal and chunk_size > 0
        return out, lens - (geometry.look_ahead - geometry.trimmed_frames if chunked else 0)

    monkeypatch.setattr(encoding, "pad_for_encoder", pad_as_in_0_1)


@pytest.fixture(scope="module")
def arrays():
    """Encoder output and the like of version 0.1 by name."""
    with np.load(kept_files.FOLDER / "encoder_output.npz") as content:
        return dict(content)


@pytest.mark.parametrize("encoder, kind", FILES)
def test_a_file_holds_the_same_model(encoder, kind, arrays):
    """Compares encoder output, and tokens, timestamps and log-probabilities of searches in all
    heads.
    """
    output, hypotheses = kept_files.heard(encoder, kind)
    np.testing.assert_allclose(output, arrays[f"{encoder} {kind}"], rtol=1e-4, atol=1e-5)
    assert_alike(hypotheses, EXPECTED[encoder][kind])
    assert sum(len(h["tokens"]) for h in hypotheses[next(iter(hypotheses))]) > 10


@pytest.mark.parametrize("encoder, kind", [f for f in FILES if f[1] not in ("averaged", "ema")])
def test_recordings_are_transcribed_alike(encoder, kind):
    """Compares what the programs for audio files print, calibrated confidences among it."""
    found = kept_files.transcribed(encoder, kind)
    assert_alike(found, EXPECTED[encoder][f"{kind}, transcribed"], tiny=1e-4)
    calibrated = "raw_confidence" in found[0]["words"][0] if found[0]["words"] else False
    assert calibrated == (encoder == "zipformer" and kind != "chunks")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("encoder", kept_files.RUNS_OF)
def test_a_run_goes_on(encoder, where):
    """Compares the records of further steps and of the validation, and the norms of all weights at
    the end.

    Rounding adds up over the five steps of an epoch: other instructions of a processor change the
    losses of ContextNet there by one in ten thousand. Version 0.1 trained at the level of the
    recordings.
    """
    found = kept_files.resumed(encoder, *WHERE[where], "--gain-prob", "0")
    assert_alike(found, EXPECTED[encoder][where], rel=1e-4 if where == "interrupted" else 1e-3, tiny=1e-6)
    steps = [r["batch"] for r in found["records"] if r["type"] == "train"]
    assert steps == ([4, 5] if where == "interrupted" else [1, 2, 3, 4, 5])


def test_results_of_decoding_are_scored_alike():
    """Compares the table of error rates of kept transcripts and of kept records of words."""
    assert kept_files.scores() == EXPECTED["scores"]


def test_confidences_are_calibrated_alike(tmp_path):
    """Compares the map fitted to kept records of words with the kept map."""
    run("calibrate_confidence", "stored/timestamps-valid.jsonl", "--exp-dir", tmp_path)
    maps = [json.loads((Path(folder) / "confidence.json").read_text()) for folder in (tmp_path, "zipformer")]
    assert_alike(*maps)

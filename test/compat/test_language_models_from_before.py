"""Language models of version 0.1, and their data, are read as that version read them."""

import shutil

import kept_files
import numpy as np
import pytest
from kept_files import EXPECTED, WHERE, assert_alike


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", kept_files.LMS)
def test_a_run_goes_on(kind, where):
    """Compares the records of further steps and of the validation, and the norms of all weights at
    the end.
    """
    found = kept_files.resumed(f"{kind}_lm", *WHERE[where])
    assert_alike(found, EXPECTED[f"{kind}_lm"][where], rel=1e-4, tiny=1e-6)
    assert sum(r["type"] == "train" for r in found["records"]) >= 4


@pytest.mark.parametrize("name", ["epoch-1.pt", "pretrained.pt"])
@pytest.mark.parametrize("kind", kept_files.LMS)
def test_sentences_score_alike(kind, name, tmp_path):
    """Compares log-probabilities of sentences by the checkpoint and by the exported weights."""
    shutil.copy(f"{kind}_lm/{name}", tmp_path / "epoch-1.pt")
    assert_alike(kept_files.sentence_scores(kind, tmp_path), EXPECTED[f"{kind}_lm"]["sentences"])


@pytest.mark.parametrize("kind", kept_files.LMS)
def test_the_script_scores_alike(kind):
    """Compares costs of sentences, and log-probabilities of single tokens, by the exported script."""
    with np.load(kept_files.FOLDER / "encoder_output.npz") as arrays:
        for i, found in enumerate(kept_files.script_scores(kind)):
            np.testing.assert_allclose(found, arrays[f"{kind}_lm {i}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", kept_files.LMS)
def test_perplexities_are_alike(kind):
    """Compares what the program prints of the kept data."""
    assert kept_files.perplexity(kind) == EXPECTED[f"{kind}_lm"]["perplexity"]


@pytest.mark.parametrize("kind", kept_files.LMS)
def test_decoding_with_a_language_model_is_alike(kind):
    """Compares tokens, times, log-probabilities and confidences that a search with it finds in
    stored features.
    """
    assert_alike(kept_files.fused(kind), EXPECTED[f"{kind}_lm"]["fusion"])

"""KenLM's scores are those of our own reader."""

import sys

import numpy as np
import pytest

from asr_core.lm import kneser_ney
from asr_core.lm.arpa import write_arpa
from asr_core.lm.kenlm_file import KenlmNgram, is_kenlm_binary, read_ngram
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError

SYMBOLS = {"<eps>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "<s>": 5, "</s>": 6}


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    rng = np.random.default_rng(1)
    sentences = [" ".join(rng.choice(list("abc"), n, p=[0.6, 0.3, 0.1])) for n in rng.integers(1, 9, 60)]
    (folder / "text").write_text("\n".join(sentences))
    write_arpa(folder / "3gram.arpa", kneser_ney.estimate(folder / "text", 3))
    return folder / "3gram.arpa"


def test_same_scores(arpa):
    pytest.importorskip("kenlm")
    ours, other = NgramLm.from_arpa(arpa, SYMBOLS), KenlmNgram(arpa, SYMBOLS)
    rng = np.random.default_rng(0)
    for bos in (True, False):
        states = [np.full(40, lm.initial_state(bos)) for lm in (ours, other)]
        for _ in range(12):
            tokens = rng.choice([1, 2, 3, 4, 77, -1], 40)
            (scores, states[0]), (others, states[1]) = (
                lm.score_batch(s, tokens) for lm, s in zip((ours, other), states)
            )
            np.testing.assert_allclose(others, scores, atol=1e-4)
            ends = [[lm.final_score(int(s)) for s in each] for lm, each in zip((ours, other), states)]
            assert ends[1] == pytest.approx(ends[0], abs=1e-4)
    for sentence in ([], [1, 2], [3, 1, 2, 2], [4, 1]):
        assert other.sentence_log_prob(sentence) == pytest.approx(ours.sentence_log_prob(sentence), abs=1e-4)
    assert other.score(other.initial_state(), 6) == pytest.approx(
        ours.score(ours.initial_state(), 6), abs=1e-4
    )
    assert (
        [other.is_known(i) for i in (1, 4, 6, 77)]
        == [ours.is_known(i) for i in (1, 4, 6, 77)]
        == [True, False, True, False]
    )
    assert len(other.score_batch(np.zeros(0), np.zeros(0))[0]) == 0 < other.num_states
    with pytest.raises(UserError, match="cannot load /nowhere"):
        KenlmNgram("/nowhere", SYMBOLS)


def test_what_a_file_is(arpa, tmp_path, monkeypatch):
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n" + bytes(40))
    assert is_kenlm_binary(binary) and not is_kenlm_binary(arpa) and not is_kenlm_binary("/nowhere")
    assert type(read_ngram(arpa)) is NgramLm
    with pytest.raises(UserError, match="does not list its words"):
        read_ngram(binary)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UserError, match="pip install kenlm"):
        read_ngram(binary, SYMBOLS)

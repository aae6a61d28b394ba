"""Perplexity: the sums of single sentences, by hand and by program."""

import math

import numpy as np
import pytest

from asr_core.bin import make_kn_lm, ngram_perplexity
from asr_core.lm import perplexity as ppl
from asr_core.lm.ngram import NgramLm

ARPA = """\\data\\
ngram 1=5

\\1-grams:
-0.3010300\ta
-0.6020600\tb
-0.6020600\t</s>
-99\t<s>
-2\t<unk>

\\end\\
"""


def test_by_hand(tmp_path, capsys):
    (tmp_path / "x.arpa").write_text(ARPA)
    (tmp_path / "t").write_text("a b\n\na z a\n<unk>\n")
    ngram_perplexity.main(["--lm", str(tmp_path / "x.arpa"), "--text", str(tmp_path / "t")])
    told = capsys.readouterr().out
    known = 3 * 0.30103 + 0.60206 + 3 * 0.60206
    assert "3 sentences, 6 words, 2 unknown" in told
    assert (
        f"perplexity {10 ** ((known + 4) / 9):.4f}" in told
        and f"without unknown words {10 ** (known / 7):.4f}" in told
    )


def test_batches_equal_single_sentences(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sentences = [
        [f"w{min(int(rng.exponential(2)), 9)}" for _ in range(rng.integers(1, 9))] for _ in range(50)
    ]
    (tmp_path / "t").write_text("\n".join(map(" ".join, sentences[:40])))
    make_kn_lm.main(["--ngram-order", "3", "--text", str(tmp_path / "t"), "--lm", str(tmp_path / "x.arpa")])
    lm = NgramLm.from_arpa(tmp_path / "x.arpa")
    monkeypatch.setattr(ppl, "_SENTENCES_AT_ONCE", 7)
    got = ppl.perplexity(lm, sentences)
    total = sum(lm.sentence_log_prob([lm.symbols.get(w, lm.symbols["<unk>"]) for w in s]) for s in sentences)
    assert got.log_prob == pytest.approx(total, rel=1e-5)
    assert got.with_oovs == pytest.approx(math.exp(-total / (got.words + 50)), rel=1e-5)
    seen, unseen = ppl.perplexity(lm, sentences[:40]), ppl.perplexity(lm, sentences[40:])
    assert seen.with_oovs < unseen.with_oovs


def test_no_text_and_impossible_words(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA.replace("-2\t<unk>\n", "").replace("1=5", "1=4"))
    lm = NgramLm.from_arpa(tmp_path / "x.arpa")
    assert math.isnan(ppl.perplexity(lm, []).with_oovs)
    got = ppl.perplexity(lm, [["q"]])
    assert got.oov_log_prob == pytest.approx(
        -100 * math.log(10), rel=1e-5
    ) and got.without_oovs == pytest.approx(4, rel=1e-4)

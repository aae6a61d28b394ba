"""Kneser-Ney: hand-computed probabilities, an independent count by dictionaries, distributions that
sum to one.
"""

import gzip
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from asr_core.bin import make_kn_lm
from asr_core.lm import kneser_ney
from asr_core.lm.arpa import read_arpa
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError


def lm_of(tmp_path, text, order):
    (tmp_path / "text").write_text(text)
    make_kn_lm.main(
        ["-ngram-order", str(order), "-text", str(tmp_path / "text"), "-lm", str(tmp_path / "lm.arpa")]
    )
    return NgramLm.from_arpa(tmp_path / "lm.arpa")


def probability(lm, words, history="<s>"):
    """P(last of words | history and the words before)."""
    ids = [lm.symbols[w] for w in words.split()]
    state = lm.initial_state(bos=history == "<s>")
    for i in ids:
        log_prob, state = lm.score(state, i)
    return math.exp(log_prob)


def test_hand_computed_bigrams(tmp_path):
    # bigrams: <s>a 2, ab 2, b</s> 2, <s>b 1, ba 1, a</s> 1: n1 = 3, n2 = 3, so one discount 3 / (3
    # + 6) = 1/3
    # unigrams by preceding words: a 2 (<s>, b), b 2 (<s>, a), </s> 2 (a, b): n1 = 0, so the fixed
    # ones; 1 is taken from each 2
    lm = lm_of(tmp_path, "a b\na b\nb a\n", 2)
    uniform = 1 / 4  # a, b, </s>, <unk>
    one = (2 - 1) / 6 + 3 / 6 * uniform
    assert probability(lm, "a", history="") == pytest.approx(one, rel=1e-5)
    assert probability(lm, "<unk>", history="") == pytest.approx(3 / 6 * uniform, rel=1e-5)
    d = 1 / 3
    assert probability(lm, "a") == pytest.approx((2 - d) / 3 + 2 * d / 3 * one, rel=1e-5)
    assert probability(lm, "b") == pytest.approx((1 - d) / 3 + 2 * d / 3 * one, rel=1e-5)
    assert probability(lm, "a b") == pytest.approx((2 - d) / 3 + 2 * d / 3 * one, rel=1e-5)
    assert probability(lm, "a a") == pytest.approx(
        2 * d / 3 * one, rel=1e-5
    )  # not seen: backoff times unigram
    assert probability(lm, "a </s>") == pytest.approx((1 - d) / 3 + 2 * d / 3 * one, rel=1e-5)


def test_discounts():
    counts = np.repeat([1, 2, 3, 4, 9], [40, 16, 8, 5, 7])
    y = 40 / (40 + 32)
    expected = [0, 1 - 2 * y * 16 / 40, 2 - 3 * y * 8 / 16, 3 - 4 * y * 5 / 8]
    np.testing.assert_allclose(kneser_ney.discounts(counts, 3), expected)
    np.testing.assert_allclose(kneser_ney.discounts(np.array([1, 1, 2, 7]), 3), [0, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(kneser_ney.discounts(np.array([3, 7]), 3), [0, 0.5, 1.0, 1.5])


class PlainKneserNey:
    """The paper's formulas by dictionaries of word tuples, apart from the estimator's arrays."""

    def __init__(self, text, order):
        sentences = [["<s>", *line.split(), "</s>"] for line in text.splitlines() if line.split()]
        self.vocabulary = {w for s in sentences for w in s} - {"<s>"} | {"<unk>"}
        raw = [
            Counter(tuple(s[i : i + k]) for s in sentences for i in range(len(s) - k + 1))
            for k in range(1, order + 1)
        ]
        self.counts, self.discount, self.order = [], [], order
        for k in range(1, order + 1):
            if k == order:
                counts = dict(raw[k - 1])
            else:
                before = defaultdict(set)
                for ngram in raw[k]:
                    before[ngram[1:]].add(ngram[0])
                counts = {g: len(before[g]) if g in before else c for g, c in raw[k - 1].items()}
            counts.pop(("<s>",), None)
            self.counts.append(counts)
            self.discount.append(kneser_ney.discounts(np.array(sorted(counts.values())), k))

    def probability(self, history, word):
        if history is None:
            return 1 / len(self.vocabulary)
        k = len(history) + 1
        followers = {g[-1]: c for g, c in self.counts[k - 1].items() if g[:-1] == history}
        shorter = self.probability(history[1:] if history else None, word)
        if not followers:
            return shorter
        total = sum(followers.values())
        taken = {w: self.discount[k - 1][min(c, 3)] for w, c in followers.items()}
        own = followers.get(word, 0) - taken.get(word, 0.0)
        return own / total + sum(taken.values()) / total * shorter


def random_text(seed, words=9, sentences=60):
    rng = np.random.default_rng(seed)
    draw = lambda: min(int(rng.exponential(2.0)), words - 1)  # noqa: E731
    return (
        "\n".join(" ".join(f"w{draw()}" for _ in range(rng.integers(0, 9))) for _ in range(sentences)) + "\n"
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_all_histories_against_plain_formulas(order, tmp_path, monkeypatch):
    monkeypatch.setattr(kneser_ney, "_AT_ONCE", 37)  # counts are merged from many pieces
    text = random_text(order)
    lm, plain = lm_of(tmp_path, text, order), PlainKneserNey(text, order)
    histories = (
        {()}
        | {g[:-1] for counts in plain.counts for g in counts}
        | {("w0", "w8", "w8", "w8", "w7")[: order - 1]}
    )
    names = sorted(plain.vocabulary)
    checked = 0
    for history in histories:
        if "</s>" in history:
            continue
        state = lm.initial_state(bos=history[:1] == ("<s>",))
        for word in history[history[:1] == ("<s>",) :]:
            state = lm.score(state, lm.symbols[word])[1]
        log_probs = [
            lm.final_score(state) if w == "</s>" else lm.score(state, lm.symbols[w])[0] for w in names
        ]
        assert np.exp(log_probs).sum() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(
            np.exp(log_probs), [plain.probability(history, w) for w in names], rtol=1e-4
        )
        checked += 1
    assert checked == {1: 1, 2: 11}.get(order, checked) and (order < 3 or checked > 50)


def test_three_discounts_are_used_where_there_is_enough_text(tmp_path):
    text = random_text(0, words=40, sentences=600)
    plain = PlainKneserNey(text, 2)
    assert len(set(plain.discount[1].tolist())) == 4
    lm = lm_of(tmp_path, text, 2)
    for history, word in [("w0", "w1"), ("w1", "w0"), ("w3", "w9"), ("w2", "</s>")]:
        state = lm.score(lm.initial_state(False), lm.symbols[history])[1]
        got = lm.final_score(state) if word == "</s>" else lm.score(state, lm.symbols[word])[0]
        assert math.exp(got) == pytest.approx(plain.probability((history,), word), rel=1e-4)


def test_words_of_the_text_may_be_unknown_ones(tmp_path):
    lm = lm_of(tmp_path, "a <unk>\n<unk> b\n", 2)
    assert probability(lm, "<unk>", history="") > probability(lm, "a", history="") * 0.99
    assert sum(probability(lm, w, history="") for w in ("a", "b", "<unk>")) < 1


def test_orders_longer_than_any_sentence(tmp_path):
    lm = lm_of(tmp_path, "a\nb\n", 5)
    assert [len(w) for w in read_arpa(tmp_path / "lm.arpa").words][3:] == [0, 0]
    state = lm.initial_state()
    total = math.exp(lm.final_score(state)) + sum(
        math.exp(lm.score(state, lm.symbols[w])[0]) for w in ("a", "b", "<unk>")
    )
    assert total == pytest.approx(1.0, abs=1e-5)


def test_compressed_text_and_both_spellings(tmp_path):
    lm_of(tmp_path, "a b\nb\n", 2)
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"a b\nb\n"))
    make_kn_lm.main(
        ["--ngram-order", "2", "--text", str(tmp_path / "t.gz"), "--lm", str(tmp_path / "other.arpa")]
    )
    assert (tmp_path / "other.arpa").read_text() == (tmp_path / "lm.arpa").read_text()


@pytest.mark.parametrize(
    "text, order, words",
    [
        ("", 2, "has no words"),
        ("a\na <s> b\n", 2, ":2: the text contains <s>"),
    ],
)
def test_mistakes_are_named(text, order, words, tmp_path):
    (tmp_path / "t").write_text(text)
    with pytest.raises(UserError, match=words):
        kneser_ney.estimate(tmp_path / "t", order)
    with pytest.raises(UserError, match="nothing"):
        kneser_ney.estimate(tmp_path / "nothing", 2)

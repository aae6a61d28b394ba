"""N-gram automata: every probability is that of a plain reading of the ARPA file; damaged files are
named by line.
"""

import gzip
import math

import numpy as np
import pytest

from asr_core.lm.arpa import read_arpa, write_arpa
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError

ARPA = """\\data\\
ngram 1=6
ngram 2=5
ngram 3=3

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.3
-0.7\t</s>
-0.9\ta\t-0.2
-0.8\tb\t-0.4
-1.1\tc

\\2-grams:
-0.4\t<s> a\t-0.15
-0.3\ta b\t-0.1
-0.6\tb c
-0.5\tb </s>
-0.45\tc a\t-0.05

\\3-grams:
-0.2\t<s> a b
-0.25\ta b </s>
-0.35\tb c a

\\end\\
"""


class PlainReading:
    """The definition: p(w | h) = p(hw) if listed, else backoff(h) * p(w | h without its first
    word).
    """

    def __init__(self, text):
        self.prob, self.backoff, self.order = {}, {}, 0
        for line in text.splitlines():
            if line.startswith("\\") and line.endswith("-grams:"):
                self.order = int(line[1:].split("-")[0])
            elif self.order and line and not line.startswith("\\"):
                fields = line.split()
                words = tuple(fields[1 : self.order + 1])
                self.prob[words] = float(fields[0])
                self.backoff[words] = float(fields[-1]) if len(fields) == self.order + 2 else 0.0

    def log_prob(self, history, word):
        if (word,) not in self.prob:
            word = "<unk>"
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        total = 0.0
        while True:
            if history + (word,) in self.prob:
                return (total + self.prob[history + (word,)]) * math.log(10)
            if not history:
                return (total - 100) * math.log(10)
            total += self.backoff.get(history, 0.0)
            history = history[1:]


def random_arpa(rng, order, size):
    """Well-formed n-grams with arbitrary weights: histories are listed, suffixes need not be."""
    words = ["<s>", "</s>", *(f"w{i}" for i in range(size))] + (["<unk>"] if rng.random() < 0.5 else [])
    lists = [[(w,) for w in words]]
    for _ in range(order - 1):
        longer = {
            h + (words[rng.integers(1, len(words))],)
            for h in lists[-1]
            if h[-1] != "</s>"
            for _ in range(rng.integers(0, 4))
        }
        lists.append(sorted(longer))
    lines = ["\\data\\", *(f"ngram {k}={len(part)}" for k, part in enumerate(lists, 1))]
    for k, part in enumerate(lists, 1):
        lines += ["", f"\\{k}-grams:"]
        for ngram in part:
            tail = f"\t{rng.uniform(-2, 0.5):.4f}" if k < order and rng.random() < 0.7 else ""
            lines.append(f"{rng.uniform(-5, 0):.4f}\t{' '.join(ngram)}{tail}")
    return "\n".join([*lines, "", "\\end\\", ""])


def check_sentence(lm, plain, words):
    state, batch_state, history = lm.initial_state(), np.array([lm.initial_state()]), ["<s>"]
    for word in words:
        token = lm.symbols.get(word, 10**6)
        expected = plain.log_prob(history, word)
        log_prob, state = lm.score(state, token)
        assert log_prob == pytest.approx(expected, abs=2e-5 + 1e-6 * abs(expected))
        log_probs, batch_state = lm.score_batch(batch_state, np.array([token]))
        assert log_probs[0] == pytest.approx(log_prob, rel=1e-6) and batch_state[0] == state
        history.append(word if (word,) in plain.prob else "<unk>")
    assert lm.final_score(state) == pytest.approx(plain.log_prob(history, "</s>"), abs=2e-5)
    assert lm.score(state, lm.symbols["</s>"])[0] == pytest.approx(lm.final_score(state), abs=1e-6)


def test_hand_computed(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA)
    lm = NgramLm.from_arpa(tmp_path / "x.arpa")
    ids = [lm.symbols[w] for w in "a b c".split()]
    # p(a|<s>) p(b|<s> a) then: bo(a b) + p(c|b) ; end: bo(b c)=0, c has no backoff, p(</s>)
    assert lm.sentence_log_prob(ids) == pytest.approx((-0.4 - 0.2 - 0.1 - 0.6 - 0.7) * math.log(10), abs=1e-5)
    assert lm.sentence_log_prob([ids[0]], bos=False, eos=False) == pytest.approx(
        -0.9 * math.log(10), abs=1e-6
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_random_sentences_against_a_plain_reading(order, tmp_path):
    for seed in range(4):
        rng = np.random.default_rng(100 * order + seed)
        text = random_arpa(rng, order, 7)
        (tmp_path / "x.arpa").write_text(text)
        lm, plain = NgramLm.from_arpa(tmp_path / "x.arpa"), PlainReading(text)
        for _ in range(30):
            check_sentence(lm, plain, [f"w{i}" for i in rng.integers(0, 9, rng.integers(0, 12))])


def test_own_ids_and_other_words(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA)
    table = {"<blk>": 0, "<sos/eos>": 1, "<unk>": 2, "b": 3, "a": 4}
    lm = NgramLm.from_arpa(tmp_path / "x.arpa", table)
    plain = PlainReading("\n".join(line for line in ARPA.splitlines() if "c" not in line.split()))
    rng = np.random.default_rng(0)
    for _ in range(20):
        check_sentence(lm, plain, [["a", "b", "z"][i] for i in rng.integers(0, 3, 6)])
    assert lm.score(0, 4)[0] == pytest.approx(-0.9 * math.log(10), abs=1e-6)
    assert lm.is_known(4) and not lm.is_known(0) and not lm.is_known(77)


def test_equal_futures_are_equal_states(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA)
    lm = NgramLm.from_arpa(tmp_path / "x.arpa")
    a, b, c = (lm.symbols[w] for w in "abc")
    after = []
    for prefix in ([a, a, c], [c, c]):  # neither "a c" nor "c c" is listed: both leave the history "c"
        state = lm.initial_state()
        for token in prefix:
            state = lm.score(state, token)[1]
        after.append(state)
    assert after[0] == after[1] != lm.score(lm.initial_state(), b)[1]


def test_max_order_leaves_a_lower_model(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA)
    lm = NgramLm.from_arpa(tmp_path / "x.arpa", max_order=2)
    state = lm.score(lm.initial_state(), lm.symbols["a"])[1]
    assert lm.score(state, lm.symbols["b"])[0] == pytest.approx(-0.3 * math.log(10), abs=1e-6)


def test_write_and_read_again(tmp_path):
    (tmp_path / "x.arpa").write_text(ARPA)
    first = read_arpa(tmp_path / "x.arpa")
    write_arpa(tmp_path / "y.arpa.gz", first)
    again = read_arpa(tmp_path / "y.arpa.gz")
    assert again.symbols == first.symbols and gzip.open(tmp_path / "y.arpa.gz").read(6) == b"\\data\\"
    for k in range(3):
        np.testing.assert_array_equal(again.words[k], first.words[k])
        np.testing.assert_allclose(again.log_probs[k], first.log_probs[k], rtol=1e-6)
        np.testing.assert_allclose(again.backoffs[k], first.backoffs[k], rtol=1e-6)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("\\data\\", "data", "is no ARPA file"),
        ("-0.8\tb\t-0.4", "-0.8x\tb\t-0.4", ":11: a log-probability or back-off weight is no number"),
        ("-0.8\tb\t-0.4", "0.8\tb\t-0.4", ":11: a log-probability is above 0"),
        ("-0.6\tb c", "-0.6\tb", ":17: expected a log-probability, 2 word"),
        ("-0.6\tb c", "-0.6\tb q", ":17: word 'q' is not among the 1-grams"),
        ("-0.6\tb c\n", "", ":20: expected a log-probability, 2 word"),
        ("ngram 2=5", "ngram 2=4", r":19: expected \3-grams:"),
        ("\\end\\", "", r"expected \end\ after"),
        ("-0.35\tb c a\n\n\\end\\\n", "", ":23: the file ends after 2 of 3 3-grams"),
        ("-0.6\tb c", "-0.6\ta c", "the history of the 3-gram 'b c a' is not among the 2-grams"),
        ("-0.6\tb c", "-0.6\ta b", "the 2-gram 'a b' occurs twice"),
        ("ngram 2=5", "ngram 3=5", ":3: expected the count of 2-grams"),
    ],
)
def test_damaged_files_are_named_by_line(old, new, words, tmp_path):
    assert ARPA.count(old) >= 1
    (tmp_path / "x.arpa").write_text(ARPA.replace(old, new, 1))
    with pytest.raises(UserError) as e:
        NgramLm.from_arpa(tmp_path / "x.arpa")
    assert words in str(e.value) and "x.arpa" in str(e.value)


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match="no.arpa"):
        NgramLm.from_arpa(tmp_path / "no.arpa")
    (tmp_path / "x.arpa.gz").write_bytes(gzip.compress(ARPA.encode())[:100])
    with pytest.raises(UserError, match="cannot read the language model"):
        NgramLm.from_arpa(tmp_path / "x.arpa.gz")

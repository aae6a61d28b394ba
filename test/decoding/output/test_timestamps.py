"""Times of words."""

import random

import pytest
from tiny import PIECES

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.output.timestamps import LONGEST_TAIL, timed_words, token_times, word_places
from asr_core.decoding.output.word_times import WordTimes, differences
from asr_core.text.tokenizer import Tokenizer

MARK = "\u2581"
LETTERS = Tokenizer(["<blk>", "<sos/eos>", "<unk>", f"{MARK}A", "B", MARK, "C"])


def test_starts_and_ends():
    hyp = Hypothesis(
        [3, 4, 3, 5, 6, 3], [2, 4, 6, 50, 52, 98], 0.0, confidences=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    )
    words = timed_words(hyp, LETTERS, 0.04, 4.0)
    tail = 0.04 + LONGEST_TAIL
    assert [w[:3] for w in words] == [
        ("AB", 0.08, 0.24),  # until the next begins
        ("A", 0.24, pytest.approx(0.24 + tail)),  # a pause follows
        ("C", 2.0, pytest.approx(2.08 + tail)),
        ("A", 3.92, 4.0),  # until the utterance ends
    ]
    assert [w.confidences for w in words] == [[0.9, 0.8], [0.7], [0.6, 0.5], [0.4]]
    assert token_times(hyp, 0.04, 2.05) == [0.08, 0.16, 0.24, 2.0, 2.05, 2.05]


def test_times_are_ordered_and_inside():
    rng = random.Random(0)
    tokenizer = Tokenizer(PIECES)
    for _ in range(500):
        count = rng.randrange(12)
        frames = sorted(rng.randrange(60) for _ in range(count))
        hyp = Hypothesis([rng.randrange(3, len(PIECES)) for _ in range(count)], frames, 0.0)
        duration = rng.uniform(0.1, 2.6)
        words = timed_words(hyp, tokenizer, 0.04, duration)
        times = [t for w in words for t in (w.start, w.end)]
        assert times == sorted(times) and all(0 <= t <= duration + 5e-4 for t in times)


def test_words_that_a_graph_knows():
    def places(words, tokens):
        return word_places(Hypothesis(tokens, list(range(len(tokens))), 0.0, words), LETTERS)

    assert places(["AB", "A"], [3, 4, 3])[1] == ("A", 2, 2)
    assert places(["a-b", "a"], [3, 4, 3]) == [("a-b", 0, 1), ("a", 2, 2)]  # spelt otherwise
    assert places(["ABA"], [3, 4, 3]) == [("ABA", 0, 2)]  # the same letters, divided otherwise
    assert places(["x", "y", "z"], [3, 4]) == [("x", -1, -1), ("y", -1, -1), ("z", -1, -1)]
    lost = timed_words(Hypothesis([3, 4], [0, 1], 0.0, ["x", "y", "z"]), LETTERS, 0.04, 1.0)
    assert [w.start for w in lost] == [None] * 3


def test_differences_count_right_words_only():
    true = {
        "u": [WordTimes("a", 0.1, 0.4), WordTimes("b", 0.5, 0.8), WordTimes("c", 1.0, 1.2)],
        "v": [WordTimes("a", 0, 1)],
    }
    found = {
        "u": [WordTimes("a", 0.2, 0.4), WordTimes("x", 0.5, 0.8), WordTimes("c", 0.9, 1.5)],
        "w": [WordTimes("a", 0, 1)],
    }
    assert differences(true, found) == [pytest.approx((0.1, 0.0)), pytest.approx((-0.1, 0.3))]

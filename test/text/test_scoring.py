import math
import random

import pytest

from asr_core.text.scoring import (
    Utterance,
    bootstrap_interval,
    characters,
    format_errs,
    format_recogs,
    format_wer_summary,
    score_utterances,
    summary_line,
)


def utts(*pairs):
    return [Utterance(f"u{i}", ref.split(), hyp.split()) for i, (ref, hyp) in enumerate(pairs)]


def levenshtein(ref, hyp):
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        last, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (r != h))
    return row[-1]


def test_counts():
    total = score_utterances(utts(("a b c", "a x c"), ("a b", "a b d"), ("a b", "b"))).total
    assert (total.subs, total.ins, total.dels, total.corr, total.ref_len) == (1, 1, 1, 5, 7)
    assert total.wer == pytest.approx(300 / 7)


def test_errors_are_the_least_possible():
    rng = random.Random(0)
    for _ in range(100):
        ref, hyp = ([rng.choice("abc") for _ in range(rng.randrange(7))] for _ in range(2))
        score = score_utterances([Utterance("u", ref, hyp)])
        assert score.total.errors == levenshtein(ref, hyp) == score.per_utterance[0][0]
        assert score.total.corr + score.total.subs + score.total.dels == len(ref)


def test_empty_references_and_hypotheses():
    assert score_utterances([]).total.wer == 0
    assert score_utterances(utts(("", ""))).total.wer == 0
    assert math.isinf(score_utterances(utts(("", "a b"))).total.wer)
    total = score_utterances(utts(("", "a"), ("b c", ""))).total
    assert (total.ins, total.dels, total.wer) == (1, 2, 150)
    assert bootstrap_interval([]) == (0.0, 0.0)


def test_a_star_is_a_word():
    total = score_utterances(utts(("a * b", "a b"))).total
    assert (total.dels, total.corr) == (1, 2)


def test_characters():
    assert characters(["AB", "C"]) == ["A", "B", "C"]


def test_recogs_format():
    lines = format_recogs([Utterance("b", ["X"], []), Utterance("a", ["IT'S", "A"], ["ITS"])])
    assert lines == "a:\tref=[\"IT'S\", 'A']\na:\thyp=['ITS']\nb:\tref=['X']\nb:\thyp=[]\n"


def test_errs_format():
    text = format_errs(score_utterances(utts(("one two three four", "one too tree four five"), ("six", ""))))
    assert text == (
        "%WER = 80.00\n"
        "Errors: 1 insertions, 1 deletions, 2 substitutions, over 5 reference words (2 correct)\n"
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, INSERTIONS:, PER-WORD STATS:\n"
        "\n"
        "PER-UTT DETAILS: corr or (ref->hyp)  \n"
        "u0:\tone (two three->too tree) four (*->five)\n"
        "u1:\t(six->*)\n"
        "\n"
        "SUBSTITUTIONS: count ref -> hyp\n"
        "1   two -> too\n"
        "1   three -> tree\n"
        "\n"
        "DELETIONS: count ref\n"
        "1   six\n"
        "\n"
        "INSERTIONS: count hyp\n"
        "1   five\n"
        "\n"
        "PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp\n"
        "two   0 1 1 0\n"
        "tree   0 1 0 1\n"
        "too   0 1 0 1\n"
        "three   0 1 1 0\n"
        "six   0 1 1 0\n"
        "five   0 1 0 1\n"
        "one   1 0 1 1\n"
        "four   1 0 1 1\n"
    )


def test_wer_summary_is_sorted():
    assert format_wer_summary({"beam": 3.456, "greedy": 2.5}) == "settings\tWER\ngreedy\t2.5\nbeam\t3.46\n"


def test_summary_line():
    total = score_utterances(utts(("a b c d", "a b c x y"))).total
    assert (
        summary_line("test-greedy_search", total)
        == "[test-greedy_search] %WER 50.00% [2 / 4, 1 ins, 0 del, 1 sub ]"
    )


def test_bootstrap_interval():
    rng = random.Random(1)
    data = [(sum(rng.random() < 0.1 for _ in range(10)), 10) for _ in range(400)]
    low, high = bootstrap_interval(data)
    rate = 100 * sum(e for e, _ in data) / 4000
    assert low < rate < high
    deviation = 100 * math.sqrt(0.1 * 0.9 / 4000)  # of a binomial proportion
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.2)
    assert bootstrap_interval(data) == (low, high) != bootstrap_interval(data, seed=1)
    assert bootstrap_interval([(1, 10)] * 50) == (10.0, 10.0)
    assert bootstrap_interval([(1, 0), (0, 0)])[1] == bootstrap_interval([(1, 2), (1, 0)])[1] == float("inf")
    assert bootstrap_interval([(1, 2), (1, 0)])[0] == 50.0  # one never hears of NaN

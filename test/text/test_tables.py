"""Tables of scores: by speaker, by character, by sentence, and two systems compared."""

import pytest
from utterances import UTTERANCES

from asr_core.text.scoring import (
    difference_interval,
    probability_of_improvement,
    score_utterances,
)
from asr_core.text.tables import by_speaker, format_scores, most_frequent, sentence_accuracy


def test_speakers_sentences_and_confusions():
    scored = score_utterances(UTTERANCES)
    rows = [
        (r.speaker, r.utterances, r.sentences_right, r.counts.errors, r.counts.ref_len)
        for r in by_speaker(UTTERANCES, scored)
    ]
    assert rows == [("(unknown)", 1, 0, 1, 0), ("bob", 2, 0, 3, 3), ("ann", 1, 1, 0, 3)]
    assert sentence_accuracy(scored) == 25 and sentence_accuracy(score_utterances([])) == 0
    frequent = most_frequent(scored, 1)
    assert frequent == {
        "substitutions": [(1, "cat -> hat")],
        "deletions": [(1, "cat")],
        "insertions": [(1, "hat")],
    }
    text = format_scores(UTTERANCES, scored)
    assert (
        "word error rate: 66.67 %" in text
        and "character error rate: 56.25 %" in text
        and "sentences right: 25.00 %: 1 of 4" in text
    )
    assert format_scores([], score_utterances([])).startswith("word error rate: 0.00 %")


def test_paired_comparison():
    old = [(1, 5)] * 60 + [(0, 5)] * 40
    better = [(0, 5)] * 55 + [(1, 5)] * 5 + [(0, 5)] * 40
    assert probability_of_improvement(old, better) > 0.999 > 0.001 > probability_of_improvement(better, old)
    assert probability_of_improvement(old, old) == 0.5 and difference_interval(old, old) == (0.0, 0.0)
    low, high = difference_interval(old, better)
    assert low < -11 < high < 0  # 55 errors fewer in 500 words
    with pytest.raises(ValueError, match="cannot be compared"):
        probability_of_improvement(old, better[1:])

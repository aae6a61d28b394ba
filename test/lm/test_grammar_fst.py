"""Grammars as OpenFst text: the same sentences have the same scores after writing and reading."""

import numpy as np
import pytest

from asr_core.bin import arpa_to_fst
from asr_core.lm.arpa import write_arpa
from asr_core.lm.grammar_fst import read_openfst_text, write_openfst_text
from asr_core.lm.kneser_ney import estimate
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import format_symbols, words_table
from asr_core.utils.errors import UserError


@pytest.fixture
def grammar(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        " ".join("abcdef"[min(int(rng.exponential(1.5)), 5)] for _ in range(rng.integers(1, 7)))
        for _ in range(80)
    ]
    (tmp_path / "text").write_text("\n".join(lines))
    write_arpa(tmp_path / "x.arpa", estimate(tmp_path / "text", 3))
    table = {word: i for i, word in enumerate(words_table("abcdef"))}
    lm = NgramLm.from_arpa(tmp_path / "x.arpa", table)
    (tmp_path / "words.txt").write_text(format_symbols(table))
    places = [
        "--arpa",
        tmp_path / "x.arpa",
        "--symbols",
        tmp_path / "words.txt",
        "--output",
        tmp_path / "G.fst.txt",
    ]
    arpa_to_fst.main([str(place) for place in places])
    return tmp_path / "G.fst.txt", lm, table


def path_costs(path, disambig, words):
    """All paths through the text's arcs that read ``words``, with free use of backoff; the cheapest
    strict-backoff one first.
    """
    arcs, finals, start = {}, {}, None
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        start = fields[0] if start is None else start
        if len(fields) == 2:
            finals[fields[0]] = float(fields[1])
        else:
            arcs.setdefault(fields[0], {})[int(fields[2])] = (fields[1], float(fields[4]), int(fields[3]))
    state, cost = start, 0.0
    for word in [*words, None]:
        while (word not in arcs.get(state, {})) if word is not None else (state not in finals):
            state, more, written = arcs[state][disambig]
            assert written == 0
            cost += more
        if word is None:
            return cost + finals[state]
        state, more, written = arcs[state][word]
        assert written == word
        cost += more


def test_the_text_scores_like_the_model(grammar):
    path, lm, table = grammar
    again = read_openfst_text(path, table["#0"], table)
    rng = np.random.default_rng(1)
    for _ in range(50):
        words = rng.integers(1, 7, rng.integers(0, 8)).tolist()
        expected = lm.sentence_log_prob(words)
        assert -path_costs(path, table["#0"], words) == pytest.approx(expected, abs=1e-4)
        assert again.sentence_log_prob(words) == pytest.approx(expected, abs=1e-4)
    assert again.initial_state() == 0


def test_labels_are_those_of_the_table(grammar):
    path, lm, table = grammar
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    labels = {int(f[2]) for f in lines if len(f) == 5}
    assert labels == {table[w] for w in "abcdef"} | {table["#0"]}  # neither <s>, </s> nor <unk>
    states = {int(f[0]) for f in lines} | {int(f[1]) for f in lines if len(f) == 5}
    assert states == set(range(len(states))) and lines[0][0] == "0"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        ("0\t1\t2\n", ":1: expected 'source dest"),
        ("0\t1\t2\t3\t0.5\n", ":1: labels 2 and 3 differ"),
        ("0\t1\t2\t2\t0.5\n", "every state but one must have one back-off arc"),
        ("0\t0\t2\t2\t0.5\n0\t0\t2\t2\t1.5\n", "two arcs with label 2"),
        ("0\t1\t9\t0\t1\n1\t0\t9\t0\t1\n2\t0.5\n", "form a circle"),
    ],
)
def test_damaged_texts_are_named(text, words, tmp_path):
    (tmp_path / "G.fst.txt").write_text(text)
    with pytest.raises(UserError, match=words) as e:
        read_openfst_text(tmp_path / "G.fst.txt", 9)
    assert "G.fst.txt" in str(e.value)


def test_a_table_without_the_disambiguation_symbol(grammar, tmp_path):
    with pytest.raises(UserError, match="has no #0"):
        write_openfst_text(grammar[1], tmp_path / "x", {"a": 1})

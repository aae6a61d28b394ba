"""Invented names among the digits: no name of the test part is heard in training; the table counts them."""

import numpy as np
import pytest
from recipe_programs import EGS

from asr_core.bin.recipe import load_file
from asr_core.utils.errors import UserError

LOCAL = EGS / "digits/ASR/local"


@pytest.fixture(scope="module")
def names():
    return load_file("names.py", beside=str(LOCAL / "names.py"))


def drawn(names, part, num):
    rng = np.random.default_rng(3)
    return [names.with_names("one two three four five", part, rng).split() for _ in range(num)]


def test_a_test_utterance_has_one_name_of_the_list(names):
    listed = names.test_names()
    assert len(set(listed)) >= 95 and listed == names.test_names()
    for words in drawn(names, "test", 100):
        assert len(words) == 5 and len(set(words) & set(listed)) == 1
        assert [w for w in words if w not in listed] == ["one", "two", "three", "four"]


def test_training_hears_other_names(names):
    utterances = drawn(names, "train", 300)
    heard = {w for words in utterances for w in words} - {"one", "two", "three", "four"}
    assert len(heard) > 200 and not heard & set(names.test_names())
    assert {len(words) for words in utterances} == {4, 5, 6}


def test_the_table_counts_what_was_found(tmp_path, capsys):
    table = load_file("names_table.py", beside=str(LOCAL / "names_table.py"))
    folder = tmp_path / "modified_beam_search"
    folder.mkdir()
    (tmp_path / "names.txt").write_text("kelvo\nbrantis\n")
    refs = {"a": ["one", "kelvo"], "b": ["brantis", "two"]}
    for name, first in (("names-x", "kilvo"), ("names-x_context-score-2.0-linear", "kelvo")):
        hyps = {"a": ["one", first], "b": ["two"]}
        lines = [
            f"{key}:\t{what}={texts[key]}\n" for key in refs for what, texts in (("ref", refs), ("hyp", hyps))
        ]
        (folder / f"recogs-{name}.txt").write_text("".join(lines))
    table.run(tmp_path, tmp_path / "names.txt")
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == ["|  | no phrases | 0 of 2 | 50.00 |  |", "| `linear` | 2 | 1 of 2 | 25.00 |  |"]
    with pytest.raises(UserError, match="run ./run_names.sh first"):
        table.run(tmp_path / "nowhere", tmp_path / "names.txt")

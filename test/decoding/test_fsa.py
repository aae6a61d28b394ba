import math

import numpy as np
import pytest
from toy_graph import fsa_of

from asr_core.decoding.graph.fsa import Fsa
from asr_core.utils.errors import UserError

TEXT = """\
2 0 3 7 0.5
2 1 1 0 1.25
0 1 2 2
1 2 5 1 -0.25
1 0.75
0
"""


def test_read_and_write(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    graph = Fsa.read(tmp_path / "a.txt")
    assert (graph.start, graph.num_states, graph.num_arcs) == (2, 3, 4)
    assert graph.begin.tolist() == [0, 1, 2, 4]
    assert (
        graph.label.tolist() == [2, 5, 1, 3]
        and graph.output.tolist() == [2, 1, 0, 7]
        and graph.dest.tolist() == [1, 2, 1, 0]
    )
    assert graph.score.tolist() == [0, 0.25, -1.25, -0.5]
    assert graph.final.tolist() == [0, -0.75, -math.inf]
    graph.write(tmp_path / "b.txt")
    again = Fsa.read(tmp_path / "b.txt")
    for name in ("begin", "label", "output", "dest", "score", "final", "start"):
        assert np.array_equal(getattr(again, name), getattr(graph, name))
    scaled = graph.scaled(2.0)
    assert scaled.score.tolist() == [0, 0.5, -2.5, -1] and scaled.final.tolist() == [0, -1.5, -math.inf]


def test_acceptors_and_words(tmp_path):
    (tmp_path / "a.txt").write_text("0 1 4\n1 0 5 0.5\n1\n")
    graph = Fsa.read(tmp_path / "a.txt")
    assert graph.output.tolist() == [4, 5] and graph.score.tolist() == [0, -0.5]
    assert graph.words([0, 1]) is None
    named = graph.with_words({"<eps>": 0, "FOUR": 4, "FIVE": 5})
    assert named.words([1, 0]) == ["FIVE", "FOUR"]
    with pytest.raises(UserError, match="output label 4"):
        graph.with_words({"<eps>": 0, "FIVE": 5})


@pytest.mark.parametrize(
    "text, message",
    [("", "no states"), ("0 1 2 3 x\n", ":1: expected"), ("0 1 1 1\na b c d\n", ":2: expected"), ("0 1 1 1 1 1\n", ":1: expected"),
     ("0 1 1 1\n", "no final state"), ("0 -1 1 1\n0\n", "negative"), ("0 1 2 x 3\n0", ":1: expected")],
)  # fmt: skip
def test_damaged_graphs_get_one_line(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        Fsa.read(tmp_path / "a.txt")


def test_labels_are_checked():
    arcs = [(0, 0, 3, 0, 0.0)]
    fsa_of(arcs, {0: 0.0}).check_labels(4, 0)
    with pytest.raises(UserError, match="made for another"):
        fsa_of(arcs, {0: 0.0}).check_labels(3, 0)
    with pytest.raises(UserError, match="without a token"):
        fsa_of([*arcs, (0, 0, 0, 1, 0.0)], {0: 0.0}).check_labels(4, 0)
    with pytest.raises(UserError, match="cannot read"):
        Fsa.read("/nowhere/LG.fst.txt")

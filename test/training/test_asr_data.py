"""Batches of cuts: how they are described, and which are the largest."""

from types import SimpleNamespace

from asr_core.training.asr_data import describe_cuts, find_extremes


def test_a_mixed_cut_is_described_by_its_first_recording():
    mono = SimpleNamespace(id="a", recording=SimpleNamespace(id="rec"), duration=1.5)
    mixed = SimpleNamespace(
        id="b", tracks=[SimpleNamespace(cut=mono), SimpleNamespace(cut=None)], duration=2.0
    )
    batch = {"supervisions": {"text": ["x", "y"], "cut": [mono, mixed]}}
    assert [(c["id"], c["recording"], c["duration"]) for c in describe_cuts(batch)] == [
        ("a", "rec", 1.5),
        ("b", "rec", 2.0),
    ]


def cut(name, duration, text="x"):
    return SimpleNamespace(id=name, duration=duration, supervisions=[SimpleNamespace(text=text)])


BATCHES = [
    (0, [cut("long", 20.0)]),
    (1, [cut(f"short{i}", 0.5) for i in range(30)]),
    (2, [cut(f"mid{i}", 5.0 - 0.1 * i) for i in range(5)]),
    (3, [cut(f"talk{i}", 3.0, "x" * 30) for i in range(5)]),
    (4, [cut("plain", 2.0)]),
]


def test_the_largest_batches_are_found():
    found = {trial.position: trial.reason for trial in find_extremes(BATCHES)}
    assert found == {
        0: "the longest utterance", 1: "the most cuts", 2: "the most audio, padding counted, the most audio", 3: "the most text"
    }  # fmt: skip

"""Batches of cuts: how they are described, and which are the largest."""

from types import SimpleNamespace

from cut_batches import BATCHES

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


def test_the_largest_batches_are_found():
    found = {trial.position: trial.reason for trial in find_extremes(BATCHES)}
    assert found == {
        0: "the longest utterance",
        1: "the most cuts",
        2: "the most audio, padding counted, the most audio",
        3: "the most text",
    }

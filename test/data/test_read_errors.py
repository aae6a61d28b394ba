"""Errors of reading: of one cut, which is dropped, or of the whole run, by their type."""

import pickle

import numpy as np
import pytest
from batches import data_options, ids
from lhotse import CutSet
from manifests import read_cuts

from asr_core.data.module import AsrDataModule
from asr_core.data.read_errors import (
    DroppedCut,
    MissingPackage,
    OtherFeatures,
    ReadMonitor,
    TooManyUnreadable,
    UnreadableCut,
    UnusableFeatures,
    as_read_error,
)
from asr_core.data.storage import FlatFeaturesWriter
from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.utils.errors import UserError

LHOTSES = """Reading audio from 'a.wav' failed. Details:
Exception #0 (<class 'lhotse.audio.backend.X'>): <class 'soundfile.LibsndfileError'>: Error opening 'a.wav': System error.
Exception #1 (<class 'lhotse.audio.backend.Y'>): <class 'FileNotFoundError'>: [Errno 2] No such file or directory: 'a.wav'
"""


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (ModuleNotFoundError("No module named 'lilcom'"), MissingPackage, "needs another package: No module"),
        (OtherFeatures("not those of the model"), OtherFeatures, "not those of the model"),
        (ValueError("first\n  \nsecond"), UnreadableCut, "unreadable (ValueError: first)"),
        (
            RuntimeError(LHOTSES),
            UnreadableCut,
            "unreadable (RuntimeError: Error opening 'a.wav': System error.)",
        ),
        (OSError(), UnreadableCut, "unreadable (OSError)"),
        (UserError("x" * 200), UnreadableCut, f"unreadable (UserError: {'x' * 160})"),
    ],
)
def test_every_error_becomes_one_that_travels_between_processes(error, kind, message):
    got = as_read_error(error)
    again = pickle.loads(pickle.dumps(DroppedCut("a", got)))
    assert type(got) is type(again.error) is kind
    assert message in str(got) and str(again.error) == str(got) and again.cut_id == "a"
    assert isinstance(got, UnusableFeatures) == (kind is not UnreadableCut)


def test_no_traceback_travels_along():
    try:
        raise OtherFeatures("not those of the model")
    except OtherFeatures as e:
        got = as_read_error(e)
    assert got.__traceback__ is None and got.__context__ is None and got.__cause__ is None


def damaged(feature_cuts, folder):
    """Cuts of which the first has a file that is cut short, the second one that is missing, the
    third NaN.
    """
    cuts = list(read_cuts(feature_cuts))[:5]
    short = folder / "short.f16"
    short.write_bytes(b"\0" * 10)
    cuts[0].features.storage_path = str(short)
    cuts[1].features.storage_path = str(folder / "missing.f16")
    shape = (cuts[2].features.num_frames, cuts[2].features.num_features)
    with FlatFeaturesWriter(str(folder / "nan.f16")) as writer:
        cuts[2].features.storage_key = writer.write("x", np.full(shape, np.nan, dtype=np.float32))
    cuts[2].features.storage_path = str(folder / "nan.f16")
    cuts[2].features.start = cuts[2].start
    return cuts


@pytest.mark.parametrize("workers", [0, 1])
def test_cuts_whose_features_are_damaged_are_dropped_with_their_reason(feature_cuts, tmp_path, workers):
    cuts = damaged(feature_cuts, tmp_path)
    module = AsrDataModule(data_options(num_workers=workers, bucketing_sampler=False))
    (batch,) = module.test_dataloader(CutSet.from_cuts(cuts))
    assert sorted(ids(batch)) == [cuts[3].id, cuts[4].id]
    reasons = {i: reason for reason, some in module.dropped.ids.items() for i in some}
    assert "is cut short" in reasons[cuts[0].id] and "cannot read features" in reasons[cuts[1].id]
    assert reasons[cuts[2].id] == "unreadable (ValueError: not finite)"


def test_a_set_of_which_nothing_can_be_read_is_an_error(feature_cuts, tmp_path):
    cuts = damaged(feature_cuts, tmp_path)[:3]
    module = AsrDataModule(data_options())
    with pytest.raises(UserError, match="test: no batch could be made; dropped: "):
        list(module.test_dataloader(CutSet.from_cuts(cuts)))
    with pytest.raises(UserError, match="validation: no batch could be made"):
        list(module.valid_dataloader(CutSet.from_cuts(cuts)))


def test_data_that_vanish_end_a_run_early():
    lost = [DroppedCut("c", UnreadableCut("unreadable (no such file)"))]
    small = ReadMonitor(0.05, 20, "epoch 1")
    small.record(10, lost)  # one of twenty
    with pytest.raises(TooManyUnreadable, match="epoch 1: 2 of the last 12 cuts .* 0.05 of 20 allows"):
        small.record(0, lost)
    large = ReadMonitor(0.05, 10**6, "epoch 1")
    for _ in range(400):
        large.record(49, lost)  # 2 % for ever
    with pytest.raises(TooManyUnreadable):
        for _ in range(60):
            large.record(0, lost)


def test_training_stops_with_its_reason_when_data_vanish(feature_cuts, tmp_path):
    cuts = damaged(feature_cuts, tmp_path)
    module = AsrDataModule(data_options(max_unreadable=0.05))
    stop = StopRequest()
    assert list(stop.guarding(module.train_dataloader(CutSet.from_cuts(cuts), 1))) == []
    assert stop.signum and "more than --max-unreadable 0.05 of " in stop.failure

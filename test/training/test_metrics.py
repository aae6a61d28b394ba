"""Sums of losses and the frames that they are averaged over."""

import pytest

from asr_core.training.metrics import MetricsTracker


def test_metrics_decay_and_divide_by_frames():
    total = MetricsTracker()
    total = total.add({"frames": 10.0, "loss": 20.0}, keep=0.9)
    total = total.add({"frames": 10.0, "loss": 30.0}, keep=0.9)
    assert dict(total) == {"frames": 19.0, "loss": 48.0}
    assert dict(total.per_frame()) == {"loss": pytest.approx(48 / 19)}
    assert str(total) == "loss=2.526, over 19.00 frames. "


@pytest.mark.parametrize(
    "bad", [{"loss": float("nan")}, {"ctc_loss": float("inf")}, {"frames": float("nan")}]
)
def test_metrics_that_are_not_finite_are_refused_as_a_whole(bad):
    total, batch = (
        MetricsTracker(frames=10.0, loss=20.0),
        MetricsTracker({"frames": 10.0, "loss": 20.0, **bad}),
    )
    assert total.is_finite() and not batch.is_finite()
    with pytest.raises(ValueError, match=f"{next(iter(bad))} (nan|inf)"):
        total.add(batch)
    assert dict(total.per_frame()) == {"loss": 2.0}  # and not 1.0, with the frames of a loss that is missing

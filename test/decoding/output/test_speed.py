"""RTFx and RTF."""

import pytest

from asr_core.decoding.output.speed import Speed


def test_speed():
    speed = Speed(audio_seconds=100.0, compute_seconds=4.0, total_seconds=8.0)
    assert (speed.rtf, speed.rtfx, speed.total_rtfx) == pytest.approx((0.04, 25.0, 12.5))
    assert str(speed) == "100.0 s of audio in 8.0 s, RTFx 12.5; encoder and search 4.0 s, RTFx 25.0"


def test_nothing_decoded():
    assert Speed(0.0, 0.0, 0.0)[:] == (0.0, 0.0, 0.0) and Speed(0.0, 0.0, 0.0).rtfx == 0.0
    assert (Speed(0.0, 1.0, 1.0).rtf, Speed(5.0, 0.0, 0.0).total_rtfx) == (0.0, 0.0)

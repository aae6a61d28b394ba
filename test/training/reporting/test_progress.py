"""Rates and the time left, with a clock that is set by hand."""

from types import SimpleNamespace

import pytest

from asr_core.training.reporting import progress
from asr_core.training.reporting.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def steps(shown, clock, number, size=6.0, seconds=2.0):
    for _ in range(number):
        clock.now += seconds
        shown.update(size, 1.0, "?")


def test_the_rate_is_size_per_second_without_pauses(clock):
    shown = Progress(600.0, num_epochs=3, bar=False)
    shown.start_epoch(1, 0.0)
    steps(shown, clock, 5)
    assert shown.rate == pytest.approx(3.0)
    shown.pause()
    clock.now += 1000.0
    shown.resume()
    steps(shown, clock, 1)
    assert shown.rate == pytest.approx(3.0)
    steps(shown, clock, 300, seconds=1.0)
    assert shown.rate == pytest.approx(6.0, rel=0.01)  # the first steps are forgotten


def test_the_first_step_after_an_uncounted_time_gives_no_rate(clock):
    shown = Progress(600.0, num_epochs=3, bar=False)
    shown.update(6.0, 1.0, "?")
    assert shown.rate == 0.0 and shown.time_left(1, 6.0, 1) == "?"


@pytest.mark.parametrize(
    "max_steps, epoch, done, step, left",
    [
        (0, 1, 0.0, 5, "1:00:00"),  # 3 epochs of 3600 s of audio and a little, 3 of them per second
        (0, 3, 3570.0, 5, "0:00:10"),
        (0, 3, 4000.0, 5, "0:00:00"),  # an epoch that is larger than was thought
        (25, 1, 0.0, 5, "0:00:40"),  # 20 steps of 2 s are less than the epochs
        (5, 1, 0.0, 9, "0:00:00"),
    ],
)
def test_the_time_left_is_that_of_the_nearer_end(clock, max_steps, epoch, done, step, left):
    shown = Progress(3600.3, num_epochs=3, max_steps=max_steps, bar=False)
    shown.start_epoch(epoch, done)
    steps(shown, clock, 5, size=6.03, seconds=2.01)
    assert shown.time_left(epoch, done, step) == left


def test_without_a_size_there_is_no_share_and_no_time():
    shown = Progress(0.0, num_epochs=3, bar=False)
    assert shown.epoch_share(50.0) == 0.0 and shown.time_left(1, 50.0, 1) == "?"
    shown = Progress(200.0, num_epochs=3, bar=False)
    assert shown.epoch_share(50.0) == 0.25 and shown.epoch_share(300.0) == 1.0


def test_a_terminal_has_a_bar_that_is_taken_away(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    shown = Progress(60.0, num_epochs=3, unit="tokens")
    shown.start_epoch(2, 30.0)
    steps(shown, clock, 3)
    shown.close()
    shown.close()
    printed = capsys.readouterr().err
    assert "epoch 2" in printed and "30/60 tokens" in printed

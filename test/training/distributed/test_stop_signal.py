"""A clean end on SIGTERM and Ctrl-C."""

import os
import signal

import pytest

from asr_core.training.distributed.stop_signal import StopRequest
from asr_core.training.distributed.world import SingleProcess
from asr_core.utils.errors import ProcessLost


def test_signals_only_set_a_flag_and_a_second_ctrl_c_interrupts(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM and not stop  # the processes have not agreed yet
        assert SingleProcess().agree_to_stop(stop) and stop and stop.exit_status == 143
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    printed = capfd.readouterr().err
    assert "SIGTERM: finishing this step" in printed and "SIGINT: finishing this step" in printed


def test_a_quiet_one_prints_nothing_and_a_forked_loader_ignores_the_signal(capfd):
    with StopRequest(quiet=True) as stop:
        stop._pid += 1  # as in a forked process
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == 0
        stop._pid -= 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_the_end_of_the_terminal_stops_too_but_not_under_nohup(monkeypatch):
    def terminal_is_gone(fd, data):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", terminal_is_gone)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert SingleProcess().agree_to_stop(stop) and stop.exit_status == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_loss_of_a_loader_stops_like_a_signal_and_keeps_its_reason():
    def batches():
        yield 1
        raise ProcessLost("a loader was killed")

    stop = StopRequest()
    assert list(stop.guarding(batches())) == [1]
    assert stop.signum == signal.SIGTERM and stop.failure == "a loader was killed"
    stop = StopRequest()
    stop.signum = signal.SIGINT  # which ended the loaders too
    assert list(stop.guarding(batches())) == [1] and stop.failure == ""

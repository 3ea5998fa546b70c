"""Ctrl-C, SIGTERM and SIGHUP as wishes, sent to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from edge_far.device.run.signals import StopRequest
from edge_far.errors import Deferred, Interrupted


def test_ctrl_c_and_sigterm_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # also where the tests run under nohup
    for number, kind in ((signal.SIGINT, Interrupted), (signal.SIGTERM, Deferred), (signal.SIGHUP, Deferred)):
        with StopRequest() as stop:
            stop.training = True
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            error = stop.error(7, 9)
            assert type(error) is kind and error.message == "stopped after step 7 of 9, checkpoint written"


def test_ctrl_c_before_training_interrupts_at_once_and_sigterm_waits() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.requested


def test_second_ctrl_c_interrupts_at_once() -> None:
    with StopRequest() as stop:
        stop.training = True
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_request_is_as_sigterm_and_never_hides_ctrl_c() -> None:
    stop = StopRequest()
    stop.request()
    assert isinstance(stop.error(1, 2), Deferred)
    with StopRequest() as stop:
        stop.training = True
        os.kill(os.getpid(), signal.SIGINT)
        stop.request()
        assert isinstance(stop.error(1, 2), Interrupted)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_closed_terminal_that_was_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

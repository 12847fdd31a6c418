"""Tests of stopping a run of one process by SIGTERM."""

import os
import signal
import threading

import pytest

from ssd_jax.runtime.stop import Stopped, StopRequest


def test_stop_request_notices_sigterm():
    with StopRequest() as stop:
        stop.raise_if_requested()
        assert (stop.requested, stop.should_stop(1)) == (False, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.requested, stop.should_stop(2)) == (True, True)
        with pytest.raises(Stopped):
            stop.raise_if_requested("an argument of a progress callback")


def test_stop_request_restores_the_signal_handler():
    def handler(*_: object) -> None: ...

    original = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(ValueError, match="fails"), StopRequest():
            assert signal.getsignal(signal.SIGTERM) is not handler
            raise ValueError("fails")
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)


def test_stop_request_outside_the_main_thread_installs_no_handler():
    before = signal.getsignal(signal.SIGTERM)
    handlers = []

    def use_stop_request() -> None:
        with StopRequest() as stop:
            handlers.append((signal.getsignal(signal.SIGTERM), stop.should_stop(1)))

    thread = threading.Thread(target=use_stop_request)
    thread.start()
    thread.join()
    assert handlers == [(before, False)]
    assert signal.getsignal(signal.SIGTERM) is before

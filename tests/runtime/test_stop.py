"""Tests of stopping a run by SIGTERM or SIGINT."""

import gc
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from ssd_jax.runtime import stop as stop_module
from ssd_jax.runtime.stop import Stopped, StopRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows lacks")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def get_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_stop_request_notices_a_signal(number, capsys):
    with StopRequest() as stop:
        stop.raise_if_requested()
        assert (stop.requested, stop.should_stop(1)) == (False, False)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.should_stop(2)) == (True, True)
        assert stop.signal is number
        os.kill(os.getpid(), signal.SIGINT)  # so soon after the first one, this is taken for the same request
        assert stop.signal is number
        with pytest.raises(Stopped):
            stop.raise_if_requested("an argument of a progress callback")
    assert capsys.readouterr().err.count("A second signal ends this process at once") == 1


def test_stop_request_notices_a_signal_in_a_callback_of_the_garbage_collector():
    """Python drops exceptions in such a callback. JAX has one, which is called often while it compiles."""

    def interrupt(*_: object) -> None:
        gc.callbacks.remove(interrupt)
        os.kill(os.getpid(), signal.SIGINT)

    with StopRequest() as stop:
        gc.callbacks.append(interrupt)
        gc.collect()
        assert stop.requested


def test_stop_request_restores_the_signal_handlers():
    def handler(*_: object) -> None: ...

    original = get_handlers()
    try:
        for number in SIGNALS:
            signal.signal(number, handler)
        with pytest.raises(ValueError, match="fails"), StopRequest():
            assert handler not in get_handlers()
            raise ValueError("fails")
        assert get_handlers() == [handler, handler]
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, previous in zip(SIGNALS, original, strict=True):
            signal.signal(number, previous)


def test_stop_request_outside_the_main_thread_installs_no_handler():
    before = get_handlers()
    handlers = []

    def use_stop_request() -> None:
        with StopRequest() as stop:
            handlers.append((get_handlers(), stop.should_stop(1)))

    thread = threading.Thread(target=use_stop_request)
    thread.start()
    thread.join()
    assert handlers == [(before, False)]
    assert get_handlers() == before


def test_ctrl_c_in_a_run_of_several_processes_is_passed_on_as_sigterm(monkeypatch):
    """In such a run, JAX handles SIGTERM and tells the other processes."""
    received = []
    original = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    monkeypatch.setattr(stop_module, "is_multi_process", lambda: True)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert received == [signal.SIGTERM]
            assert not stop.requested
    finally:
        signal.signal(signal.SIGTERM, original)


# A call into C that takes minutes, releases the GIL and does not return when a signal arrives, like a compilation.
_LONG_CALL = """
import hashlib
from ssd_jax.runtime.stop import StopRequest

with StopRequest():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_ends_the_process_at_once_during_a_call_into_c(number):
    process = subprocess.Popen([sys.executable, "-c", _LONG_CALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert b"A second signal" in process.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert errors.strip() == b"Ended at once. Checkpoints that were complete are kept."

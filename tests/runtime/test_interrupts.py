"""Tests of Ctrl-C that waits for the end of a block."""

import signal
import threading

import pytest

from ssd_jax.runtime.interrupts import DelayedInterrupt

pytestmark = pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="Ctrl-C is ignored here")


def test_interrupt_waits_for_the_end_of_a_delay():
    done = []
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt() as interrupt, interrupt.delay():
        signal.raise_signal(signal.SIGINT)
        done.append("after the signal")
    assert done == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_between_delays_and_the_second_one_have_their_effect_at_once():
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("Ctrl-C was delayed")
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt() as interrupt, interrupt.delay():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was delayed")


def test_other_threads_and_other_handlers_are_left_as_they_are():
    before = signal.getsignal(signal.SIGINT)
    handlers = []

    def delay() -> None:
        with DelayedInterrupt() as interrupt, interrupt.delay():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=delay)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        delay()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [before, signal.SIG_IGN]

"""Ctrl-C that waits for the end of work that has to be done as a whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class DelayedInterrupt:
    """Context manager in which Ctrl-C has its usual effect, but not before the end of a block of `delay`.

    The second Ctrl-C in a block has its effect at once. Outside of the main thread, which alone receives Ctrl-C, and
    if Ctrl-C is ignored, nothing is changed.
    """

    def __init__(self) -> None:
        self._is_delaying = self._is_pending = False
        self._previous: Callable[[int, FrameType | None], Any] | None = None

    def __enter__(self) -> "DelayedInterrupt":
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._previous = handler
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._previous is not None and signal.getsignal(signal.SIGINT) == self._handle:  # no effect yet
            signal.signal(signal.SIGINT, self._previous)

    @contextmanager
    def delay(self) -> Iterator[None]:
        """Let Ctrl-C wait for the end of the ``with`` block."""
        self._is_delaying = True
        try:
            yield
        finally:
            self._is_delaying = False
        if self._is_pending:
            self._handle(signal.SIGINT, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_delaying and not self._is_pending:
            self._is_pending = True
            return
        self._is_pending = False
        assert self._previous is not None, "it was there when this handler was set"
        self._previous(number, frame)

"""Stopping a run early when the process receives SIGTERM, or SIGINT, which Ctrl-C sends."""

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from jax.experimental import multihost_utils

from ssd_jax.runtime.distributed import is_multi_process

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS = 0.2
"""A program that starts this process may pass on a Ctrl-C that the terminal also sends to this process. A signal within
this time after the first one therefore counts as the same request."""


class Stopped(Exception):  # noqa: N818  # not an error
    """Raised to interrupt work that need not be finished, such as an evaluation, after a stop request."""


class StopRequest:
    """Context manager that notices Ctrl-C (SIGINT) and SIGTERM, which schedulers send before they kill a process.

    Neither signal raises an exception, which Python would drop in a callback of the garbage collector, such as those
    that JAX runs while it compiles. A second signal ends the process at once, even during a compilation.

    In a run of several processes, it is enough that one process receives a signal: all processes stop after the same
    step.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal that this process has received. Always None in a run of several processes."""

    @property
    def requested(self) -> bool:
        """Whether this process has received a signal. Always False in a run of several processes."""
        return self.signal is not None

    def __enter__(self) -> "StopRequest":
        # Python allows signal handlers only in the main thread.
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._multi_process = is_multi_process()
            # In a run of several processes, jax.distributed handles SIGTERM.
            handled = _SIGNALS[:1] if self._multi_process else _SIGNALS
            self._previous = {number: signal.signal(number, self._record_signal) for number in handled}
            self._watcher = _SecondSignalWatcher(handled)
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            self._watcher.close()
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        if self._multi_process:
            signal.raise_signal(signal.SIGTERM)
        elif self.signal is None:
            self.signal = signal.Signals(number)

    def should_stop(self, step: int) -> bool:
        """Return whether training should stop after this step. All processes must call this after every step.

        Args:
            step: Number of the step that was just done, the same in all processes.
        """
        if is_multi_process():
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.requested

    def raise_if_requested(self, *_: object) -> None:
        """Raise Stopped if the run has only one process and this process has received a signal.

        In a run of several processes nothing is raised, because all processes have to do the same work. Arguments
        are ignored, so that this method can serve as a progress callback.
        """
        if self.requested:
            raise Stopped


class _SecondSignalWatcher:
    """Thread that ends the process at the second signal.

    Python calls a signal handler in the main thread, and only after a call into C++, such as a compilation, has
    returned. But it writes the number of the signal to a socket at once, which this thread reads.

    Args:
        signals: Signals to watch. They must have a handler.
    """

    def __init__(self, signals: tuple[signal.Signals, ...]) -> None:
        self._signals = signals
        self._reader, self._writer = socket.socketpair()  # Windows has no pipes that do not block
        self._writer.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        signal.set_wakeup_fd(self._previous)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        first = None
        while number := self._reader.recv(1):
            if number[0] not in self._signals:
                continue
            if first is None:
                first = time.monotonic()
                print(  # above the progress display
                    "Stopping after the current step, which will be saved. A second signal ends this process at once.",
                    file=sys.stderr,
                    flush=True,
                )
            elif time.monotonic() - first > _REPEAT_SECONDS:
                print("\nEnded at once. Checkpoints that were complete are kept.", file=sys.stderr, flush=True)
                os._exit(128 + number[0])

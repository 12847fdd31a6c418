"""Stopping a run early when the process receives SIGTERM."""

import signal
import threading
from types import FrameType

from jax.experimental import multihost_utils

from ssd_jax.runtime.distributed import is_multi_process


class Stopped(Exception):  # noqa: N818  # not an error
    """Raised to interrupt work that need not be finished, such as an evaluation, after a stop request."""


class StopRequest:
    """Context manager that notices SIGTERM, which schedulers send some time before they kill a process.

    In a run of several processes, it is enough that one process receives the signal: all processes stop after the same
    step.
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether this process has received SIGTERM. Always False in a run of several processes."""

    def __enter__(self) -> "StopRequest":
        # In a run of several processes, jax.distributed handles the signal. Python allows signal handlers only in the
        # main thread.
        self._installed = not is_multi_process() and threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = signal.signal(signal.SIGTERM, self._record_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._previous)

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def should_stop(self, step: int) -> bool:
        """Return whether training should stop after this step. All processes must call this after every step.

        Args:
            step: Number of the step that was just done, the same in all processes.
        """
        if is_multi_process():
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.requested

    def raise_if_requested(self, *_: object) -> None:
        """Raise Stopped if the run has only one process and this process has received SIGTERM.

        In a run of several processes nothing is raised, because all processes have to do the same work. Arguments
        are ignored, so that this method can serve as a progress callback.
        """
        if self.requested:
            raise Stopped

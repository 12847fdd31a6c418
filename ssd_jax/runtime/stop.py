"""Stop training at SIGTERM, after the same step in all processes."""

import signal
import threading
from types import FrameType

from jax.experimental import multihost_utils

from ssd_jax.runtime.distributed import is_multi_process


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Asked to stop, by SIGTERM, in the middle of something that can be left."""


class StopRequest:
    """Whether SIGTERM asks to stop, as schedulers do some time before they kill. A context manager.

    Of several processes one is enough to be asked: all stop after the same step.
    """

    def __init__(self) -> None:
        self.requested = False
        """Of several processes this one never knows."""

    def __enter__(self) -> "StopRequest":
        # With several, jax.distributed listens. Elsewhere than in the main thread nobody can.
        self._listens = not is_multi_process() and threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def should_stop(self, step: int) -> bool:
        """To be called after every step, by all processes."""
        if is_multi_process():
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.requested

    def raise_if_requested(self, *_: object) -> None:
        """Raises Stopped, where this process is the only one; several have to stay together."""
        if self.requested:
            raise Stopped

"""Several processes as one run, on one machine or many: who is here, who writes, when to stop.

``jax.distributed`` brings them together and keeps them so. Each runs the same program on the same
config; the first one writes. What one of them does alone, the others wait for.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

from ssd_jax.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Hosts:
    """How this process finds the others of its run; by default it is alone."""

    distributed: bool = False
    """One of several processes, as Slurm, Open MPI, Kubernetes or Cloud TPU have started them."""
    coordinator: str = ""
    """HOST:PORT of process 0, where nobody tells. With --process-index and --process-count."""
    process_index: int | None = None
    process_count: int | None = None

    def __post_init__(self) -> None:
        by_hand = (bool(self.coordinator), self.process_index is not None, self.process_count is not None)
        if any(by_hand) and not all(by_hand):
            raise UserError("--coordinator HOST:PORT, --process-index and --process-count go together")
        if self.process_index is not None and not 0 <= self.process_index < (self.process_count or 0):
            raise UserError(
                f"--process-index is {self.process_index}, must lie in 0 to --process-count {self.process_count} - 1"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise UserError(f"--coordinator is {self.coordinator}, must be HOST:PORT, such as 10.0.0.1:12345")


def join(hosts: Hosts) -> None:
    """Waits until all processes of the run are there. Before anything that asks for devices.

    From then on only the first one prints, but for warnings and errors. How long the others are waited for, and
    how long one may give no sign of life, is SSD_JAX_JOIN_SECONDS and SSD_JAX_HEARTBEAT_SECONDS in the environment.
    """
    if not hosts.distributed and not hosts.coordinator:
        return
    joining, silence = _seconds("SSD_JAX_JOIN_SECONDS", 300), _seconds("SSD_JAX_HEARTBEAT_SECONDS", 100)
    _observe()
    where = hosts.coordinator or "the address that the cluster tells"
    told = (
        f"the processes of this run did not come together at {where}, in {joining} s at most. "
        "Start all of them, with the same --coordinator and --process-count; the others have to reach process 0 there"
    )
    last_words(f"error: {told}")
    print(f"Meeting the other processes at {where}, for which {joining} s are left...", flush=True)
    try:
        with _time_limit(joining, told):
            jax.distributed.initialize(
                hosts.coordinator or None,
                hosts.process_count,
                hosts.process_index,
                initialization_timeout=joining + 60,  # JAX's own end has a stack trace
                heartbeat_timeout_seconds=silence,
            )
            _check_process_count()
    except (ValueError, RuntimeError) as error:
        told = str(error).strip().splitlines()[0]
        raise UserError(
            f"the processes of this run can't be brought together ({told}). Where no cluster tells them to each "
            "other, give each --coordinator HOST:PORT --process-index I --process-count N, with a port of process 0's "
            "host that is free"
        ) from error
    last_words(f"{DIED} Start all of them again with the same command.")
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # as long as the process


@contextmanager
def _time_limit(seconds: int, told: str) -> Iterator[None]:
    """Of a call into C++, which Python can't leave: the process ends with exit code 2 then, or at Ctrl-C."""

    def give_up() -> None:
        last_words("")
        print(f"error: {told}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    main_thread = threading.current_thread() is threading.main_thread()
    heeded = signal.signal(signal.SIGINT, signal.SIG_DFL) if main_thread else None
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if main_thread:
            signal.signal(signal.SIGINT, heeded)


def _check_process_count() -> None:
    """Raises UserError where a process was told another count than process 0: they would wait for each other."""
    store: Any = global_state.client  # JAX offers no other way to it
    own, count = global_state.process_id, global_state.num_processes
    key = "ssd_jax/process_count/{}"
    store.key_value_set(key.format(own), str(count))
    for other in range(count) if own == 0 else [0]:
        others = int(store.blocking_key_value_get(key.format(other), 60_000))
        if others != count:
            raise UserError(
                f"--process-count is {count} for process {own}, but {others} for process {other}: give all the same"
            )


def _seconds(variable: str, default: int) -> int:
    """Of the environment; JAX reads no such variable, and the defaults are its own."""
    text = os.environ.get(variable, str(default))
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"{variable} is {text!r} in the environment, must be a whole number of seconds")
    return int(text)


def several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not several() or jax.process_index() == 0


def first_does(work: Callable[[], T], failure: type[UserError] = UserError) -> T | None:
    """On the first process ``work()``, on the others None, once it is done. Where it raises a failure all do."""
    if not several():
        return work()
    result, error = None, None
    if is_first():
        try:
            result = work()
        except failure as raised:
            error = raised
    if multihost_utils.broadcast_one_to_all(np.array(error is not None)):
        raise error or failure("stopped, as the first process did; it says why")
    return result


def begun_together(program: Callable[..., T]) -> Callable[..., T]:
    """A jitted function that exchanges something, called by all processes: none runs it before all have compiled it.

    Gloo, on CPUs, waits 30 s for the others when it is first used, and compiling may differ by more.
    """
    if not several():
        return program
    number, begun = next(_meetings), False

    @wraps(program)
    def together(*arguments: Any) -> T:
        nonlocal begun
        if not begun:
            jax.block_until_ready(arguments)
            program.lower(*arguments).compile()  # type: ignore[attr-defined]
            global_state.client.wait_at_barrier(f"ssd_jax/begun/{number}", 1000 * _A_DAY)  # type: ignore[union-attr]
            begun = True
        return program(*arguments)

    return together


_meetings = itertools.count()
_A_DAY = 86_400  # seconds; processes that die are noticed by their silence


def check_same(text: str, what: str) -> None:
    """Raises UserError, on all processes, unless they have the same text."""
    if not several():
        return
    sums = np.ravel(multihost_utils.process_allgather(np.array(zlib.crc32(text.encode()))))
    others = np.flatnonzero(sums != sums[0])
    if len(others):
        raise UserError(f"{what} of process {others[0]} is another than that of process 0: give all of them the same")


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Asked to stop, by SIGTERM, in the middle of something that can be left."""


class StopRequest:
    """Whether SIGTERM asks to stop, as schedulers do some time before they kill. A context manager.

    Of several processes one is enough to be asked: all stop after the same step.
    """

    def __init__(self) -> None:
        self.asked = False
        """Of several processes this one never knows."""

    def __enter__(self) -> "StopRequest":
        # With several, jax.distributed listens. Elsewhere than in the main thread nobody can.
        self._listens = not several() and threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def reached(self, step: int) -> bool:
        """To be called after every step, by all processes."""
        if several():
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.asked

    def leave_if_asked(self, *_: object) -> None:
        """Raises Stopped, where this process is the only one; several have to stay together."""
        if self.asked:
            raise Stopped


_OBSERVER = "import sys; sys.stderr.write(sys.stdin.read().rpartition(chr(0))[2])"
_observer: Any = None
DIED = "This process was ended: it was killed, or another one of the run died, whose messages tell why."


def last_words(message: str) -> None:
    """What is printed should this process end without a word of its own, instead of what was to be so far.

    JAX's runtime ends a process, from C++ and with a stack trace, where the others don't come, or one of
    them gives no sign of life. A little process on the other end of a pipe sees that, and says what to do.
    For one of several processes; else nobody listens.
    """
    if _observer is not None:
        with suppress(OSError):
            _observer.stdin.write(f"\0\n{message}\n" if message else "\0")
            _observer.stdin.flush()


def _observe() -> None:
    global _observer
    command = [sys.executable, "-IS", "-c", _OBSERVER]
    _observer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)


def leave(code: int) -> None:
    """Of several processes: ends this one at once, without waiting for the others, who would wait for it."""
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

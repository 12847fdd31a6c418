"""Several processes as one run, on one machine or many: who is here, who writes, when to stop.

``jax.distributed`` brings them together and keeps them so. Each runs the same program on the same
config; the first one writes. What one of them does alone, the others wait for.
"""

import itertools
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

from ssd_jax.errors import UserError
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.exit_message import EXIT_REASON, set_exit_message, start_observer

T = TypeVar("T")


def initialize(hosts: DistributedOptions) -> None:
    """Waits until all processes of the run are there. Before anything that asks for devices.

    From then on only the first one prints, but for warnings and errors. How long the others are waited for, and
    how long one may give no sign of life, is SSD_JAX_JOIN_SECONDS and SSD_JAX_HEARTBEAT_SECONDS in the environment.
    """
    if not hosts.distributed and not hosts.coordinator:
        return
    joining, silence = _seconds("SSD_JAX_JOIN_SECONDS", 300), _seconds("SSD_JAX_HEARTBEAT_SECONDS", 100)
    start_observer()
    where = hosts.coordinator or "the address that the cluster tells"
    told = (
        f"the processes of this run did not come together at {where}, in {joining} s at most. "
        "Start all of them, with the same --coordinator and --process-count; the others have to reach process 0 there"
    )
    set_exit_message(f"error: {told}")
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
    set_exit_message(f"{EXIT_REASON} Start all of them again with the same command.")
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # as long as the process


@contextmanager
def _time_limit(seconds: int, told: str) -> Iterator[None]:
    """Of a call into C++, which Python can't leave: the process ends with exit code 2 then, or at Ctrl-C."""

    def give_up() -> None:
        set_exit_message("")
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


def is_multi_process() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this process is the one that writes."""
    return not is_multi_process() or jax.process_index() == 0


def run_on_primary(work: Callable[[], T], failure: type[UserError] = UserError) -> T | None:
    """On the first process ``work()``, on the others None, once it is done. Where it raises a failure all do."""
    if not is_multi_process():
        return work()
    result, error = None, None
    if is_primary():
        try:
            result = work()
        except failure as raised:
            error = raised
    if multihost_utils.broadcast_one_to_all(np.array(error is not None)):
        raise error or failure("stopped, as the first process did; it says why")
    return result


def start_together(program: Callable[..., T]) -> Callable[..., T]:
    """A jitted function that exchanges something, called by all processes: none runs it before all have compiled it.

    Gloo, on CPUs, waits 30 s for the others when it is first used, and compiling may differ by more.
    """
    if not is_multi_process():
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


def assert_same(text: str, what: str) -> None:
    """Raises UserError, on all processes, unless they have the same text."""
    if not is_multi_process():
        return
    sums = np.ravel(multihost_utils.process_allgather(np.array(zlib.crc32(text.encode()))))
    others = np.flatnonzero(sums != sums[0])
    if len(others):
        raise UserError(f"{what} of process {others[0]} is another than that of process 0: give all of them the same")


def exit_now(code: int) -> None:
    """Of several processes: ends this one at once, without waiting for the others, who would wait for it."""
    if is_multi_process():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

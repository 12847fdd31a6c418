"""Several processes as one training run, on one host or several, by ``jax.distributed``.

Every process runs the same program on the same config. The primary process, number 0, also prints and writes files;
the others wait for it where they need its result.
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
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssd_jax.errors import UserError, error_reason
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.exit_message import EXIT_REASON, set_exit_message, start_observer

T = TypeVar("T")

_KEY_TIMEOUT_MS = 60_000
_BARRIER_TIMEOUT_MS = 86_400_000  # a day: the heartbeat notices processes that die


def initialize(options: DistributedOptions) -> None:
    """Wait until all processes of the run have started. Call this before anything that uses a device.

    Afterwards only the primary process prints to stdout; all processes print warnings and errors. Environment
    variables set the time limits: SSD_JAX_JOIN_SECONDS is how long to wait for the other processes, and
    SSD_JAX_HEARTBEAT_SECONDS is how long a process may send no heartbeat before the others end.

    Args:
        options: The options of this process. Without ``distributed`` and ``coordinator`` this function does nothing.

    Raises:
        UserError: If JAX cannot connect the processes, or if they were given different process counts. If the
            others do not start in time, the process ends with exit code 2 instead.
    """
    if not options.distributed and not options.coordinator:
        return
    join_seconds = _seconds_from_environment("SSD_JAX_JOIN_SECONDS", 300)
    heartbeat_seconds = _seconds_from_environment("SSD_JAX_HEARTBEAT_SECONDS", 100)
    start_observer()
    address = options.coordinator or "the address given by the cluster"
    message = (
        f"timed out after {join_seconds} s waiting for the other processes at {address}. Start all processes with "
        "the same --coordinator and --process-count, and check that they can reach process 0 at this address"
    )
    set_exit_message(f"error: {message}")
    print(f"Waiting up to {join_seconds} s for the other processes at {address}...", flush=True)
    try:
        with _time_limit(join_seconds, message):
            jax.distributed.initialize(
                options.coordinator or None,
                options.process_count,
                options.process_index,
                initialization_timeout=join_seconds + 60,  # JAX's own timeout aborts with a stack trace
                heartbeat_timeout_seconds=heartbeat_seconds,
            )
            _check_process_count()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot connect the processes of this run ({error_reason(error)}). If no cluster tells them about each "
            "other, give every process --coordinator HOST:PORT --process-index I --process-count N, with a free port "
            "on the host of process 0"
        ) from error
    set_exit_message(f"{EXIT_REASON} Start all processes again with the same command.")
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # stays open as long as the process


@contextmanager
def _time_limit(seconds: int, message: str) -> Iterator[None]:
    """End the process with exit code 2 if the block, a call into C++ that Python cannot interrupt, takes too long.

    Ctrl-C ends the process at once while the block runs.
    """

    def give_up() -> None:
        set_exit_message("")
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL) if in_main_thread else None
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if in_main_thread:
            signal.signal(signal.SIGINT, previous)


class _Coordination(NamedTuple):
    """This process at JAX's coordination service."""

    store: Any
    """Key-value store that all processes share."""
    process_index: int
    process_count: int
    """The number on the command line of this process. ``jax.process_count()`` would wait for that many processes."""


def _coordination() -> _Coordination | None:
    """Return the coordination service, for which JAX has no public function; None if this JAX keeps it elsewhere."""
    try:
        from jax._src.distributed import global_state

        return _Coordination(global_state.client, global_state.process_id, global_state.num_processes)
    except (ImportError, AttributeError):
        return None


def _check_process_count() -> None:
    """Raise UserError if a process has another process count than process 0: they would wait for each other forever."""
    coordination = _coordination()
    if coordination is None:
        return
    store, own, count = coordination
    key = "ssd_jax/process_count/{}"
    store.key_value_set(key.format(own), str(count))
    for other in range(count) if own == 0 else [0]:
        other_count = int(store.blocking_key_value_get(key.format(other), _KEY_TIMEOUT_MS))
        if other_count != count:
            raise UserError(
                f"--process-count is {count} for process {own}, but {other_count} for process {other}: give the same "
                "number to all processes"
            )


def _seconds_from_environment(variable: str, default: int) -> int:
    """Return a positive number of seconds from an environment variable that JAX itself does not read."""
    text = os.environ.get(variable, str(default))
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"the environment variable {variable} is {text!r}, but must be a positive number of seconds")
    return int(text)


def is_multi_process() -> bool:
    """Return whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Return whether this is the process that prints and writes files."""
    return not is_multi_process() or jax.process_index() == 0


def run_on_primary(work: Callable[[], T], failure: type[UserError] = UserError) -> T | None:
    """Run a function on the primary process while the others wait for it.

    Args:
        work: Function of no arguments.
        failure: The exception that ``work`` may raise; if it does, all processes raise it.

    Returns:
        The result of ``work`` on the primary process, None on the others.

    Raises:
        UserError: Of type ``failure``, on all processes, if ``work`` raised it. Only the primary process has the
            original message.
    """
    if not is_multi_process():
        return work()
    result, error = None, None
    if is_primary():
        try:
            result = work()
        except failure as raised:
            error = raised
    if multihost_utils.broadcast_one_to_all(np.array(error is not None)):
        raise error or failure("stopped because process 0 reported an error")
    return result


def start_together(program: Callable[..., T]) -> Callable[..., T]:
    """Wrap a jitted function so that all processes have compiled it before any of them runs it.

    On CPUs, the Gloo library waits 30 s for the other processes when a program first communicates, and compile times
    may differ by more.

    Args:
        program: A jitted function that communicates between processes and that all processes call.

    Returns:
        A function with the same arguments and results; ``program`` itself if there is only one process.
    """
    if not is_multi_process():
        return program
    barrier, compiled = f"ssd_jax/start/{next(_barrier_numbers)}", False

    @wraps(program)
    def wrapped(*arguments: Any) -> T:
        nonlocal compiled
        if not compiled:
            jax.block_until_ready(arguments)
            program.lower(*arguments).compile()  # type: ignore[attr-defined]
            _wait_for_all_processes(barrier)
            compiled = True
        return program(*arguments)

    return wrapped


_barrier_numbers = itertools.count()


def _wait_for_all_processes(barrier: str) -> None:
    """Wait at a barrier of JAX's coordination service, which, unlike a collective, does not use Gloo."""
    from orbax.checkpoint import multihost  # takes seconds to import, and only several processes need it

    multihost.get_barrier_sync_fn()(key=barrier, timeout_ms=_BARRIER_TIMEOUT_MS)


def assert_same(text: str, name: str) -> None:
    """Check that all processes have the same text.

    Args:
        text: Text to compare, such as a config.
        name: What the text is, for the message.

    Raises:
        UserError: On all processes, if the texts differ.
    """
    if not is_multi_process():
        return
    checksums = np.ravel(multihost_utils.process_allgather(np.array(zlib.crc32(text.encode()))))
    others = np.flatnonzero(checksums != checksums[0])
    if len(others):
        raise UserError(
            f"{name} of process {others[0]} differs from that of process 0: use the same command on every process"
        )


def exit_now(code: int) -> None:
    """End this process at once if there are several; the usual shutdown would wait for the others.

    Args:
        code: Exit code of the process.
    """
    if is_multi_process():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

"""Functions for a run of several processes, on one host or several, connected by ``jax.distributed``.

Every process runs the same program with the same config. Only the primary process, which has index 0, prints to stdout
and writes logs and pictures; the other processes wait for it where they need the result.
"""

import itertools
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssd_jax.errors import UserError, format_error_reason
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.exit_message import EXIT_REASON, set_exit_message, start_observer

T = TypeVar("T")

_KEY_TIMEOUT_MS = 60_000
_BARRIER_TIMEOUT_MS = 86_400_000  # a day, because the heartbeat already detects processes that have died


def initialize(options: DistributedOptions) -> None:
    """Connect the processes of the run, after waiting until all of them have started.

    Call this before any use of a device. Afterwards only the primary process prints to stdout; all processes print
    warnings and errors to stderr. Two environment variables set time limits in seconds: SSD_JAX_JOIN_SECONDS (default
    300) is the time to wait for the other processes, and SSD_JAX_HEARTBEAT_SECONDS (default 100) is the time without a
    heartbeat after which a process counts as dead and the other processes end.

    Args:
        options: Options of this process. If neither ``distributed`` nor ``coordinator`` is set, nothing is done.

    Raises:
        UserError: If JAX cannot connect the processes, or if they were started with different process counts. If the
            other processes do not start in time, no exception is raised; this process ends with exit code 2.
    """
    if not options.distributed and not options.coordinator:
        return
    join_seconds = _read_seconds("SSD_JAX_JOIN_SECONDS", 300)
    heartbeat_seconds = _read_seconds("SSD_JAX_HEARTBEAT_SECONDS", 100)
    start_observer()
    address = options.coordinator or "the address given by the cluster"
    message = (
        f"timed out after {join_seconds} s waiting for the other processes at {address}. Start all processes with "
        "the same --coordinator and --process-count, and check that they can reach process 0 at this address"
    )
    set_exit_message(f"error: {message}")
    print(f"Waiting up to {join_seconds} s for the other processes at {address}...", flush=True)
    try:
        with _limit_time(join_seconds, message):
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
            f"cannot connect the processes of this run ({format_error_reason(error)}). Without a cluster manager, give "
            "every process --coordinator HOST:PORT --process-index I --process-count N, with a free port "
            "on the host of process 0"
        ) from error
    set_exit_message(f"{EXIT_REASON} Start all processes again with the same command.")
    if not is_primary():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # stays open until the process ends


@contextmanager
def _limit_time(seconds: int, message: str) -> Iterator[None]:
    """End the process with a message and exit code 2 if the ``with`` block takes longer than ``seconds``.

    The block is a call into C++, which Python cannot interrupt. Therefore Ctrl-C, too, ends the process at once.
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
    """Connection of this process to JAX's coordination service."""

    store: Any
    """Client of the key-value store that all processes share."""
    process_index: int
    process_count: int
    """Process count that this process was started with. It can be read without waiting for other processes."""


def _find_coordination() -> _Coordination | None:
    """Return the connection to JAX's coordination service, or None if this version of JAX does not expose it.

    JAX has no public function for this, so a private module of JAX is used.
    """
    try:
        from jax._src.distributed import global_state

        return _Coordination(global_state.client, global_state.process_id, global_state.num_processes)
    except (ImportError, AttributeError):
        return None


def _check_process_count() -> None:
    """Raise a UserError if another process was started with a different process count.

    Processes with different process counts would wait for each other forever.
    """
    coordination = _find_coordination()
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


def _read_seconds(variable: str, default: int) -> int:
    """Return the number of seconds that an environment variable sets, or the default if the variable is not set.

    Raises:
        UserError: If the value is not a positive whole number.
    """
    text = os.environ.get(variable, str(default))
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"the environment variable {variable} is {text!r}, but must be a positive number of seconds")
    return int(text)


def is_multi_process() -> bool:
    """Return whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Return whether this is the primary process, which prints output and writes logs and pictures."""
    return not is_multi_process() or jax.process_index() == 0


def run_on_primary(work: Callable[[], T], failure: type[UserError] = UserError) -> T | None:
    """Call a function in the primary process only, while the other processes wait.

    Args:
        work: Function of no arguments.
        failure: Type of the exceptions of ``work`` that are raised in all processes.

    Returns:
        The result of ``work`` in the primary process, and None in the other processes.

    Raises:
        UserError: If ``work`` raises an exception of type ``failure``. All processes then raise that type; only the
            primary process has the original message.
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


def share_integers(work: Callable[[], Sequence[int]], count: int) -> list[int]:
    """Call a function in the primary process only, and return its result in all processes.

    Args:
        work: Function of no arguments that returns integers below 2**31.
        count: Number of these integers.

    Raises:
        UserError: If ``work`` raises a UserError, see `run_on_primary`.
    """
    values = run_on_primary(work)
    if is_multi_process():
        values = multihost_utils.broadcast_one_to_all(np.array([0] * count if values is None else values, np.int32))
    assert values is not None
    return [int(value) for value in values]


def start_together(program: Callable[..., T]) -> Callable[..., T]:
    """Wrap a jitted function, so that its first call runs only after all processes have compiled the function.

    On CPUs, the Gloo library waits only 30 s for the other processes when a program first communicates, and the compile
    times of the processes may differ by more than that.

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
    """Wait until all processes have called this function with the same barrier name.

    The barrier belongs to JAX's coordination service. Unlike a collective operation, it does not use Gloo.
    """
    from orbax.checkpoint import multihost  # takes seconds to import, and only several processes need it

    multihost.get_barrier_sync_fn()(key=barrier, timeout_ms=_BARRIER_TIMEOUT_MS)


def assert_same_text(text: str, name: str) -> None:
    """Raise a UserError in all processes if the processes pass different texts.

    Args:
        text: Text to compare, such as a config.
        name: Description of the text for the message, such as ``the config``.

    Raises:
        UserError: If the texts differ. All processes raise it.
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
    """End this process at once if the run has several processes; a normal exit would wait for the other processes.

    In a run of one process, this function does nothing.

    Args:
        code: Exit code of the process.
    """
    if is_multi_process():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

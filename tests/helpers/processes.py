"""Helpers that start several processes of one run on this machine and collect their output."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.paths import TESTS


class FinishedProcess(NamedTuple):
    """Exit code, stdout and stderr of a process that has ended."""

    code: int
    out: str
    err: str


def find_free_address() -> str:
    """Return an address HOST:PORT of this machine with a port that is not in use."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def make_environment(devices: int = 1, **variables: object) -> dict[str, str]:
    """Return the environment variables for a process with the given number of virtual CPU devices."""
    own = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "NPROC": "8",  # number of threads, which affects how convolutions are split and rounded
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    return os.environ | own | {name: str(value) for name, value in variables.items()}


def start_worker(task: str, out: Path, options: Mapping[str, object], **variables: object) -> subprocess.Popen[str]:
    """Start a process that runs a function of distributed_worker.py, and return the process.

    Args:
        task: Name of the function.
        out: Folder for the results of the function.
        options: Fields of DistributedOptions.
        **variables: Arguments of `make_environment`.
    """
    return subprocess.Popen(
        [sys.executable, str(TESTS / "helpers" / "distributed_worker.py"), task, str(out), json.dumps(options)],
        env=make_environment(**variables),  # type: ignore[arg-type]
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_workers(task: str, out: Path, counts: Sequence[int] = (2, 2), **variables: object) -> list[subprocess.Popen]:
    """Start all processes of a run, each of which runs a function of distributed_worker.py.

    Args:
        task: Name of a function of distributed_worker.py.
        out: Folder for the results of the function.
        counts: Process count that each process is started with.
        **variables: Arguments of `make_environment`.
    """
    address = find_free_address()
    options = [{"coordinator": address, "process_index": i, "process_count": n} for i, n in enumerate(counts)]
    return [start_worker(task, out, given, **variables) for given in options]


def wait_until_finished(processes: Sequence[subprocess.Popen[str]], timeout: float = 900) -> list[FinishedProcess]:
    """Wait until all processes have ended, and return their exit codes and outputs.

    If a process does not end within ``timeout`` seconds, all processes are killed, and subprocess.TimeoutExpired is
    raised.
    """
    texts = []
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [FinishedProcess(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]

"""Description of the machine that the measurements were made on."""

import importlib.metadata
import os
import platform
from pathlib import Path

from ssd_jax.errors import UserError


def describe_machine(*packages: str) -> str:
    """Return a line with processor, number of usable cores, and versions of Python, jax and ``packages``.

    Raises:
        UserError: If one of the packages is not installed.
    """
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", *packages)]
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed. `make bench` installs it into .venv-parity and runs this benchmark"
        ) from None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([f"{find_processor_name()}, {cores} cores; Python {platform.python_version()}", *versions])


def find_processor_name() -> str:
    """Return the model name of the CPU, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

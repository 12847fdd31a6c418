"""Parse the options of a command, initialize JAX, and check output folders before the work starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from ssd_jax import files
from ssd_jax.errors import UserError
from ssd_jax.runtime.distributed_options import DistributedOptions

T = TypeVar("T")
SINGLE_PROCESS = DistributedOptions()
OUT_ADVICE = "Name another --out."


def parse_options(kind: type[T], command: str, argv: Sequence[str]) -> T:
    """Parse the options of a command into a dataclass, whose docs are the help.

    Raises:
        SystemExit: An option is unknown or cannot be parsed, or help was asked for.
    """
    return tyro.cli(kind, args=list(argv), prog=f"ssd-jax {command}")


def initialize_jax(distributed: DistributedOptions = SINGLE_PROCESS) -> None:
    """Join the processes of the run, and enable the cache of compiled programs. Call it before any use of a device."""
    from ssd_jax.runtime import compilation
    from ssd_jax.runtime.distributed import initialize

    initialize(distributed)
    compilation.enable_compilation_cache()
    compilation.release_compiler_memory()


def check_out_folder(out: Path, marker: str) -> None:
    """Refuse a folder with files of others, such as photographs, which output of the same names would replace.

    Args:
        out: The folder. It need not exist.
        marker: Name of a file that the command writes. A folder that has it may be written again.

    Raises:
        UserError: The folder is not empty and has no such file, or it is a file.
    """
    with files.user_errors_on_write(out, OUT_ADVICE):
        has_other_files = out.exists() and any(out.iterdir()) and not (out / marker).exists()
    if has_other_files:
        raise UserError(f"--out {out}: the folder contains other files. {OUT_ADVICE}")


def check_new_folder(out: Path) -> None:
    """Refuse a folder that exists and is not empty.

    Raises:
        UserError: The folder is not empty, or it is a file.
    """
    with files.user_errors_on_write(out, OUT_ADVICE):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out} exists already. {OUT_ADVICE}")


def make_out_folder(out: Path) -> None:
    """Create the folder, before the work that fills it.

    Raises:
        UserError: The folder cannot be created.
    """
    with files.user_errors_on_write(out, OUT_ADVICE):
        out.mkdir(parents=True, exist_ok=True)

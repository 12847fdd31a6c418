"""Files: atomic writes, names, and errors of the file system as errors for users."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd_jax.errors import UserError


@contextmanager
def user_errors_on_write(
    target: Path, advice: str = "Free some space or make it writable, then give the same command again."
) -> Iterator[None]:
    """Around whatever writes to target: an OSError becomes a UserError that names it, with advice."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{target}: can't be written ({error.strerror or error}). {advice}") from error


def write_text(file: Path, text: str) -> None:
    """Whole or not at all: a run that is killed here leaves the old file."""
    temporary = file.with_name(file.name + ".tmp")
    with user_errors_on_write(file):
        temporary.write_text(text)
        os.replace(temporary, file)


def safe_file_name(split: str) -> str:
    """A split as part of a file's name: of VOC2007/trainval[:50%] some characters can't be in one."""
    return re.sub(r"[^\w.-]+", "_", split.replace(":", "to").replace("%", "pct")).strip("_")

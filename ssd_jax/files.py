"""Safe file names, atomic writes, and conversion of file system errors into errors for users."""

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

from ssd_jax.errors import convert_errors


def convert_write_errors(
    target: Path, advice: str = "Free some space or make it writable, then give the same command again."
) -> AbstractContextManager[None]:
    """Return a context manager that converts an OSError into a UserError about writing ``target``."""
    return convert_errors(f"{target}: can't be written", advice, catch=OSError)


def convert_read_errors(
    source: Path, advice: str = "Check the path and its permissions."
) -> AbstractContextManager[None]:
    """Return a context manager that converts an OSError into a UserError about reading ``source``."""
    return convert_errors(f"{source}: can't be read", advice, catch=OSError)


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, so that an interrupted write does not change an existing file.

    Raises:
        UserError: If the file cannot be written.
    """
    temporary = file.with_name(file.name + ".tmp")
    with convert_write_errors(file):
        temporary.write_text(text)
        os.replace(temporary, file)


def make_safe_file_name(name: str) -> str:
    """Return a name in which all characters that are not safe in a file name are replaced.

    For example, ``VOC2007/trainval[:50%]`` becomes ``VOC2007_trainval_to50pct``.
    """
    return re.sub(r"[^\w.-]+", "_", name.replace(":", "to").replace("%", "pct")).strip("_")

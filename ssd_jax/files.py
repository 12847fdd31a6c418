"""Safe file names, atomic writes, and conversion of file system errors into errors for users."""

import codecs
import contextlib
import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from ssd_jax.errors import convert_errors, escape_text
from ssd_jax.portability import WINDOWS_FORBIDDEN

MAX_NAME_BYTES = 255
"""Length that most file systems allow for a file name."""
_WINDOWS_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""File names that mean devices on Windows, with any extension."""


CACHE_VARIABLE = "SSD_JAX_CACHE"
"""Environment variable that names the folder of cached files."""


def make_user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with a leading ``~`` replaced by the home folder."""
    return Path(os.path.expanduser(path))


def find_cache_folder() -> Path:
    """Return the folder of cached files: ``SSD_JAX_CACHE``, or the folder that the platform has for caches."""
    import platformdirs

    variable = os.environ.get(CACHE_VARIABLE)
    return make_user_path(variable) if variable else Path(platformdirs.user_cache_dir("ssd-jax", appauthor=False))


def convert_write_errors(
    target: Path, advice: str = "Free some space or make it writable, then give the same command again."
) -> AbstractContextManager[None]:
    """Return a context manager that converts an OSError into a UserError about writing ``target``."""
    return convert_errors(f"{target}: can't be written", advice, catch=OSError)


def close_after_errors(stream: IO[Any]) -> None:
    """Close a file. What is still in its buffer could not be written before, which was reported then."""
    with contextlib.suppress(OSError):
        stream.close()


def convert_read_errors(
    source: Path, advice: str = "Check the path and its permissions."
) -> AbstractContextManager[None]:
    """Return a context manager that converts an OSError into a UserError about reading ``source``."""
    return convert_errors(f"{source}: can't be read", advice, catch=OSError)


_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its start
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def convert_to_utf8(data: bytes) -> bytes:
    """Return a text in UTF-8 without a byte order mark, if it begins with the mark of UTF-8, UTF-16 or UTF-32.

    Other bytes are returned as they are, as is a text that is cut in the middle of a character, except for that.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            rest = data.removeprefix(mark)
            return rest if encoding == "utf-8" else rest.decode(encoding, "ignore").encode(errors="replace")
    return data


def write_text(file: Path, text: str, errors: str = "backslashreplace") -> None:
    r"""Write a text file in UTF-8 atomically, so that an interrupted write does not change an existing file.

    Args:
        file: File to write.
        text: Content.
        errors: How to write a byte of a file name that is not UTF-8, such as E9. "backslashreplace": as ``\udce9``. In
            a JSON file, Python's json module reads this back as the same file name. "surrogateescape": as this byte.

    Raises:
        UserError: If the file cannot be written.
    """
    write_bytes(file, text.encode("utf-8", errors))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file atomically, so that an interrupted write does not change an existing file.

    Raises:
        UserError: If the file cannot be written.
    """
    temporary = file.with_name(append_to_file_name(file.name, ".tmp"))
    with convert_write_errors(file):
        temporary.write_bytes(content)
        os.replace(temporary, file)


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as a CSV file, so that it is safe to open in a spreadsheet.

    `escape_text` is applied to each text. A text that a spreadsheet would compute as a formula gets an apostrophe in
    front, which spreadsheets take as the mark of a text.

    Raises:
        UserError: If the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([make_cell(value) for value in row] for row in (header, *rows))
    write_text(file, text.getvalue())


def make_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = escape_text(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def append_to_file_name(name: str, suffix: str, limit: int = MAX_NAME_BYTES) -> str:
    """Return a file name with a suffix. A name that would be too long is cut and gets a hash of the whole name.

    Args:
        name: A file name of any length.
        suffix: Text to append, such as ``.tmp``.
        limit: Maximum length of the result in bytes.
    """
    if len(os.fsencode(name + suffix)) <= limit:
        return name + suffix
    suffix = f"_{hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()}{suffix}"
    while len(os.fsencode(name + suffix)) > limit:
        name = name[:-1]
    return name + suffix


def make_safe_file_name(name: str) -> str:
    """Replace the characters of a name that are not safe in a file name, and cut it so that suffixes can be appended.

    For example, ``VOC2007/trainval[:50%]`` becomes ``VOC2007_trainval_to50pct``. The result is also safe on Windows,
    which has names for devices, such as ``aux``, and drops a dot at the end of a name.
    """
    safe = re.sub(r"[^\w.-]+", "_", name.replace(":", "to").replace("%", "pct")).strip("_").rstrip(".")
    if _WINDOWS_DEVICES.fullmatch(safe):
        safe = f"_{safe}"
    return append_to_file_name(safe, "", MAX_NAME_BYTES - 55)


def replace_forbidden_characters(name: str) -> str:
    """Return a name in which the characters that Windows forbids in file names are replaced by ``_``."""
    return re.sub(rf"[\x00-\x1f{re.escape(WINDOWS_FORBIDDEN)}]", "_", name)

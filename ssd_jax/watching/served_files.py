"""The files of a run folder that the page shows: pictures and report pages."""

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from ssd_jax.errors import escape_text
from ssd_jax.portability import open_regular_file

MAX_SERVED_BYTES = 256 << 20
_NAMES: tuple[tuple[Literal["report", "detections", "annotations", "batch"], re.Pattern[str]], ...] = (
    ("report", re.compile(r"report(?:_([\w.-]+))?\.html", re.DOTALL)),
    ("detections", re.compile(r"([\w.-]+)_pred\.jpg", re.DOTALL)),
    ("annotations", re.compile(r"([\w.-]+)_truth\.jpg", re.DOTALL)),
    ("batch", re.compile(r"(train)_batch\.jpg")),
)


class ServedFile(msgspec.Struct, frozen=True):
    """A file of a run folder that the page links to or shows."""

    name: str
    kind: str
    """"report", "detections", "annotations" or "batch"."""
    split: str
    """Name of the split; empty for the page report.html, whose split is that of metrics.json."""
    modified: float
    """When it was written, in seconds since 1970."""

    @property
    def media_type(self) -> str:
        return "text/html; charset=utf-8" if self.kind == "report" else "image/jpeg"


def find_served_files(folder: Path) -> dict[str, ServedFile]:
    """Return the files of a run folder that may be served, by name. The latest ones come first.

    Only regular files with names that ssd-jax gives are served, and no links.

    Args:
        folder: The run folder. If it cannot be read, there are no files.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                for kind, pattern in _NAMES:
                    match = pattern.fullmatch(entry.name)
                    if match and entry.is_file(follow_symlinks=False) and escape_text(entry.name) == entry.name:
                        modified = entry.stat(follow_symlinks=False).st_mtime
                        found.append(ServedFile(entry.name, kind, match[1] or "", modified))
    except OSError:  # the folder has vanished, or one of the files
        pass
    return {file.name: file for file in sorted(found, key=lambda file: (-file.modified, file.name))}


def read_served_file(folder: Path, file: ServedFile) -> bytes | None:
    """Return the content of a file that `find_served_files` found, or None if it is not there any more.

    Args:
        folder: The run folder.
        file: The file.
    """
    try:
        with open_regular_file(folder / file.name, follows_link=False) as opened:
            data = opened.read(MAX_SERVED_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_SERVED_BYTES else None

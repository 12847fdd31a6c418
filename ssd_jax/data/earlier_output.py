"""Recognition of the output folders of ``ssd-jax predict``, whose pictures with boxes are not images to detect in."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

JSON_FILE = "predictions.json"
MARKER = ".ssd_jax_predictions"
"""Name of an empty file in an output folder. Older folders with predictions.json do not have it."""
MARKERS = (JSON_FILE, MARKER)
BOXES_NOTE = "x1, y1, x2, y2 in pixels of the original image"
"""Value of the first entry of predictions.json, "boxes", by which it differs from other files of this name."""
_MAX_START_BYTES = 100


def is_output_folder(folder: Path) -> bool:
    """Return whether ``ssd-jax predict`` wrote files into a folder."""
    try:
        if (folder / MARKER).exists():
            return True
        with (folder / JSON_FILE).open("rb") as stream:
            start = stream.read(_MAX_START_BYTES)
    except OSError:
        return False
    return start.startswith(b'{\n "boxes": "' + BOXES_NOTE.encode())


def make_output_search(root: Path) -> Callable[[str], str | None]:
    """Return a function that finds the outermost output folder around a file.

    Its argument is the path of a file or folder relative to ``root``, with ``/`` between its parts. It returns the path
    of a folder below ``root``, relative to it, or None. The root itself counts as no output folder.
    """

    @cache
    def find_output_folder(path: str) -> str | None:
        parent = path.rpartition("/")[0]
        if not parent:
            return None
        return find_output_folder(parent) or (parent if is_output_folder(root / parent) else None)

    return find_output_folder

"""Read the YAML file that names the classes and the splits of a data set in YOLO's format."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssd_jax.data.folder import Folder, parent, path_tails, spelling_key, split_path
from ssd_jax.data.formats.documents import read_yaml
from ssd_jax.data.source import join_names
from ssd_jax.data.split_names import is_split_name, split_of_path
from ssd_jax.errors import UserError

_YAML = (".yaml", ".yml")
_NAMES_KEY = re.compile(rb"(?m)^(\xef\xbb\xbf)?[\"']?names[\"']?\s*:")


class Place(NamedTuple):
    """A folder of images, or a list of images, that a YAML file names for a split."""

    entry: str
    """Path as written in the YAML file."""
    path: Path
    """Existing path, or the path relative to the YAML file if none exists."""
    is_moved: bool
    """True if the path was found by the end of the entry only."""


def find_yaml_file(folder: Folder) -> Path | None:
    """Return the YAML file that names the classes of a data set, or None if there is none.

    It is the path of the folder itself, if this is a YAML file, or the file that is the least deep in the folder.

    Raises:
        UserError: If several YAML files name classes, and none of them is called ``data``.
    """
    if folder.path.is_file():
        return folder.path if folder.path.suffix.lower() in _YAML else None
    files = [file for file in folder.with_extension(*_YAML) if _names_classes(folder.full_path(file))]
    depths = [file.count("/") for file in files]
    files = [file for file, depth in zip(files, depths, strict=True) if depth == min(depths)]
    if len(files) < 2:
        return folder.full_path(files[0]) if files else None
    if len({parent(file) for file in files}) == 1:
        for file in files:
            if Path(file).stem.lower() == "data":
                return folder.full_path(file)
    raise UserError(
        f"{folder.path}: several YAML files name classes: {join_names(files)}. Choose one with --data.root FILE."
    )


def _names_classes(file: Path) -> bool:
    try:
        return _NAMES_KEY.search(file.read_bytes()) is not None
    except OSError:
        return False


def read_description(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file that describes a data set.

    Raises:
        UserError: If the file cannot be read, or does not name classes.
    """
    content = read_yaml(file)
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{file}: the key 'names' is missing. Write, for example, names: [cat, dog].")
    return content


def find_yaml_places(folder: Folder) -> dict[str, list[Place]]:
    """Return the folders and lists of images that a YAML file names for each split, whether they exist or not."""
    file = find_yaml_file(folder)
    content = {} if file is None else read_description(file)
    if file is None:
        return {}
    bases = [file.parent / str(content.get("path", "")).replace("\\", "/"), file.parent]

    def is_split(key: str) -> bool:
        entry = content[key]
        if is_split_name(key):
            return entry not in ("", "null", "~")  # an entry without a value counts as absent
        is_place = isinstance(entry, str) and any(os.path.isdir(base / entry) for base in bases)
        return is_place and entry != "" and key != "path"

    named = {key: content[key] for key in content if is_split(key)}
    return {
        key: [_find_place(folder, bases, str(entry)) for entry in (entries if isinstance(entries, list) else [entries])]
        for key, entries in named.items()
    }


def _find_place(folder: Folder, bases: Sequence[Path], entry: str) -> Place:
    """Return the existing file or folder that a path in a YAML file refers to, or the literal path if none exists.

    Roboflow writes ``../train/images`` for ``train/images`` in the folder of the YAML file. In Ultralytics' software,
    ``path`` is relative to a folder that contains all data sets. A path may also be that of another machine; then the
    longest end of it that exists in the folder is used.
    """
    text = entry.replace("\\", "/")
    candidates = [join_paths(base, end) for end in (text, re.sub(r"^(\.\./)+", "", text)) for base in bases]
    existing = next((path for path in candidates if os.path.exists(path)), None)
    if existing is not None:
        return Place(entry, existing, False)
    known = {path: f"/{spelling_key(path)}" for file in folder.listing.files for path in _parents(file)}
    split = split_of_path("/".join(split_path(text)))
    for tail in path_tails(str(candidates[0])):
        if split is not None and split not in tail.split("/"):
            break
        found = [path for path, key in known.items() if key.endswith(f"/{spelling_key(tail)}")]
        if len(found) == 1:
            return Place(entry, folder.full_path(found[0]), True)
    return Place(entry, candidates[0], False)


def _parents(file: str) -> list[str]:
    """Return a relative path and the paths of its folders, except the root."""
    parts = file.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def join_paths(*parts: str | Path) -> Path:
    """Return joined paths without ``.`` and ``..``, so that each image has only one path."""
    return Path(os.path.normpath(os.path.join(*parts)))

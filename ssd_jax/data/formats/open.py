"""Find the format of the data set that `config.Data` names, and open its splits with the module for this format.

To add a format, write a module of this package with the interface of `FolderFormatModule`, and add its name to
`FOLDER_FORMATS` below and to the choices of ``Data.format`` in ``config.py``. `ssd_jax.data.formats.reader` contains
functions that such modules share.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from ssd_jax.config import Data
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Source, join_names, split_aliases
from ssd_jax.data.splits import JoinedSource, Term, parse_split, slice_positions
from ssd_jax.errors import UserError

FOLDER_FORMATS = ("coco", "voc", "yolo", "ilsvrc")
"""Formats that are recognised by the content of a folder, in the order in which they are tried. Each format has the
name of the module of this package that reads it. The module is imported when it is needed."""


@runtime_checkable
class FormatModule(Protocol):
    """Interface of a module that reads one format."""

    def split_names(self, data: Data) -> tuple[str, ...]:
        """Return the names of the splits that `open_split` can open."""
        ...

    def open_split(
        self, data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
    ) -> Source:
        """Open one split, without slices or sums. See `open_source` for the arguments and errors."""
        ...


@runtime_checkable
class FolderFormatModule(FormatModule, Protocol):
    """Interface of a module that reads a format of `FOLDER_FORMATS`."""

    LAYOUT: str
    """Description of the files by which the format is recognised, for the message about an unknown folder."""

    def matches(self, root: Path) -> bool:
        """Return whether a file or folder is in this format. Any existing path is allowed; the check must be fast."""
        ...


def _import_format_module(name: str) -> FormatModule:
    return cast(FormatModule, importlib.import_module(f"ssd_jax.data.formats.{name}"))


def _import_folder_format_module(name: str) -> FolderFormatModule:
    return cast(FolderFormatModule, _import_format_module(name))


def open_source(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> Source:
    """Open a split of the data set that ``data`` names.

    If the data set is a folder, its annotation files are read by this function, and its images on access.

    Args:
        data: Options of the data set, such as ``data.root`` and ``data.format``.
        split: Name of a split, or a specification that joins and slices splits, see `ssd_jax.data.splits`.
        class_names: Class names in the order of their labels, as stored with a run. Empty: the classes of
            the data set. If splits are joined, the classes of the first split are followed by additional classes of
            the other splits.
        problems: Object that collects problems of files and boxes. By default, the first error is raised.

    Returns:
        The images and annotations of the split.

    Raises:
        UserError: If ``data.root`` does not exist or is in no known format, or if the split does not exist or is
            empty. If ``problems`` raises errors, also if a file is malformed or missing, or if a class is not in
            ``class_names``.
    """
    terms = parse_split(split)
    sources = [_open_term(data, term, class_names, problems) for term in terms]
    positions = [slice_positions(term, len(source)) for term, source in zip(terms, sources, strict=True)]
    if not any(map(len, positions)):
        raise UserError(f"{data.root}: the split '{split}' contains no images.")
    if len(terms) == 1 and len(positions[0]) == len(sources[0]):
        return sources[0]
    return JoinedSource(list(zip(terms, sources, positions, strict=True)))


def _open_term(data: Data, term: Term, class_names: Sequence[str], problems: Problems | None) -> Source:
    data = _data_in_subfolder(data, term.folder)
    return _import_format_module(find_format(data)).open_split(data, term.name, class_names, problems)


def _data_in_subfolder(data: Data, folder: str) -> Data:
    return dataclasses.replace(data, root=f"{data.root}/{folder}") if folder else data


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits that `open_source` can open. Raises UserError as `find_format` does."""
    return _import_format_module(find_format(data)).split_names(data)


def missing_split(data: Data, split: str) -> str | None:
    """Return a message about the first split in a specification that does not exist, or None if all splits exist."""
    for term in parse_split(split):
        part = _data_in_subfolder(data, term.folder)
        splits = split_names(part)
        if not set(split_aliases(term.name)) & set(splits):
            return f"{part.root} has no split '{term.name}'. Available splits: {join_names(splits)}."
    return None


# ---- finding the format ----


def is_generated(data: Data) -> bool:
    """Return whether the images of a data set are generated (``shapes``) instead of read from files."""
    return data.format == "shapes" or (data.format == "auto" and data.root == "shapes")


def is_tfds(data: Data) -> bool:
    """Return whether ``data.root`` names a data set of tensorflow-datasets, such as ``tfds:voc/2007``."""
    return data.format == "tfds" or data.root.startswith("tfds:")


def find_format(data: Data) -> str:
    """Return the name of a data set's format: ``shapes``, ``tfds`` or one of `FOLDER_FORMATS`.

    With ``data.format="auto"``, the format of a folder is recognised by its files.

    Raises:
        UserError: If ``data.root`` is empty, does not exist, or is in no known format.
    """
    if is_generated(data):
        return "shapes"
    if is_tfds(data):
        return "tfds"
    if not data.root:
        raise UserError("data.root is empty. Give the folder of images and annotations with --data.root FOLDER.")
    root = Path(data.root)
    if not root.exists():
        raise UserError(
            f"data.root: the folder '{root}' does not exist. Give an existing folder with --data.root FOLDER, or "
            "--data.root shapes for generated images."
        )
    if data.format != "auto":
        return data.format
    name = _recognise_format(root)
    if name is None:
        layouts = (f"  {name}: {_import_folder_format_module(name).LAYOUT}" for name in FOLDER_FORMATS)
        raise UserError(
            f"data.root: '{root}' is in no known format.{_hint_for_unknown_format(root)} Known formats:",
            *layouts,
        )
    return name


def _recognise_format(root: Path) -> str | None:
    return next((name for name in FOLDER_FORMATS if _import_folder_format_module(name).matches(root)), None)


def _hint_for_unknown_format(root: Path) -> str:
    """Return a hint for the message about a path in no known format, preceded by a space, or an empty string."""
    from ssd_jax.data.formats.coco import find_error_message

    coco_error = find_error_message(root)
    coco_hint = coco_error and f" As a COCO data set, it is malformed: {coco_error}"
    if root.is_file():
        return coco_hint or " It is a file; if it is an archive, unpack it and give the folder."
    for folder in sorted(f for f in root.iterdir() if f.is_dir()):
        if _recognise_format(folder):
            return f" Did you mean '{folder}'?"
    return coco_hint

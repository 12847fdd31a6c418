"""Recognise the format of a folder by its files, and explain what a folder in no known format may be.

To add a format, write a module of this package with the interface of `FolderFormatModule`, and add its name to
`FOLDER_FORMATS` below and to the choices of ``Data.format`` in ``config.py``. If the annotations can be read one image
after another, the module needs only two functions, see `ssd_jax.data.formats.records`.
"""

import contextlib
import importlib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from ssd_jax.config import Data
from ssd_jax.data.folder import Folder, parent, spelling_key, stem
from ssd_jax.data.formats.layout import folder_distance
from ssd_jax.data.formats.other_formats import name_image_without_ending, name_other_files, name_other_format
from ssd_jax.data.formats.reader import PUBLISHED, WHOLE
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError

FOLDER_FORMATS = (
    "ilsvrc", "coco", "voc", "yolo", "labelme", "cvat", "label_studio", "via", "createml", "supervisely", "kitti",
    "dota", "wider_face", "open_images", "csv",
)  # fmt: skip
"""Formats that are recognised by the content of a folder. If a folder is in two formats, the one with more annotated
images is used, or the first of those with equally many. Each format has the name of the module of this package that
reads it. The module is imported when it is needed."""


@runtime_checkable
class FolderFormatModule(Protocol):
    """Interface of a module that reads a format of `FOLDER_FORMATS`."""

    LAYOUT: str
    """Description of the files by which the format is recognised, for the message about an unknown folder."""

    def count_annotated(self, folder: Folder) -> int:
        """Return the approximate number of annotated images; 0 if a folder is not in this format. It must be fast."""
        ...

    def split_names(self, folder: Folder, data: Data) -> tuple[str, ...]:
        """Return the names of the splits that the data set defines; empty if it has no splits."""
        ...

    def open_split(
        self, folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems
    ) -> Source:
        """Open the split with one of the names in `split_names`, or all images if ``split`` is `WHOLE`."""
        ...


def import_folder_format_module(name: str) -> FolderFormatModule:
    """Import the module that reads a format of `FOLDER_FORMATS`."""
    return cast(FolderFormatModule, importlib.import_module(f"ssd_jax.data.formats.{name}"))


def recognise_format(data: Data, folder: Folder) -> tuple[str, list[str]]:
    """Return the format of a folder, and the other formats in which it has annotations.

    Raises:
        UserError: If the folder is in no known format.
    """
    if data.format != "auto":
        return data.format, []
    counts = _count_annotated(folder)
    if not counts:
        layouts = (f"  {name}: {import_folder_format_module(name).LAYOUT}" for name in FOLDER_FORMATS)
        hint = _hint_for_unknown_format(folder)
        raise UserError(f"data.root: '{folder.path}' is in no known format.{hint} Known formats:", *layouts)
    best = max(counts, key=lambda name: counts[name])
    if best == "voc" and any("Annotations/DET/" in file for file in folder.with_extension(".xml")):
        inner = next(file for file in folder.with_extension(".xml") if "Annotations/DET/" in file)
        outer = folder.root / inner.partition("Annotations/DET/")[0]
        raise UserError(f"data.root: '{folder.path}' contains the ILSVRC data set. Did you mean '{outer}'?")
    # A YAML file that names classes, as beside DOTA's labels, is no annotation in YOLO's format.
    return best, [name for name in counts if name != best and not (name == "yolo" and counts[name] == 1 < counts[best])]


def _count_annotated(folder: Folder) -> dict[str, int]:
    """Return the number of annotated images of a folder by format, for all formats that it is in."""
    counts: dict[str, int] = {}
    for name in FOLDER_FORMATS:
        count = import_folder_format_module(name).count_annotated(folder)
        if count == PUBLISHED:
            return {name: count}
        if count:
            # Several tables or lists may count an image more than once.
            counts[name] = min(count, len(folder.images)) or count
    return counts


def _hint_for_unknown_format(folder: Folder) -> str:
    """Return a sentence, preceded by a space, that guesses what a path in no known format is; empty without a guess."""
    from ssd_jax.data.formats.coco import find_error_message

    other = name_other_format(folder)
    if other:
        return f" {other}"
    coco_error = find_error_message(folder)
    if coco_error:
        return f" As a COCO data set, it is malformed: {coco_error}"
    if folder.path.is_file():
        return " It is a file; if it is an archive, unpack it and give the folder."
    outer = find_outer_data_set(folder)
    if outer is not None:
        what = "images" if folder.images else "annotations"
        return f" It contains {what} only. Did you mean '{outer}'?"
    if not folder.images:
        return f" It contains no images.{name_image_without_ending(folder)}"
    return f" {name_other_files(folder)}".rstrip() or " It contains images only. Give the folder of their annotations."


def find_outer_data_set(folder: Folder) -> Path | None:
    """Return the folder above a folder of images or of annotations that is a data set with these files, or None."""
    from ssd_jax.data.formats.coco import find_record, list_named_images

    annotations = folder.with_extension(".xml", ".txt") or list_named_images(folder)
    stems = {spelling_key(stem(file)) for file in folder.images or annotations}
    for above in map(Folder, folder.path.absolute().parents[:2] if stems else ()):
        place = folder.path.absolute().relative_to(above.path).as_posix()
        others = above.with_extension(".xml", ".txt") if folder.images else above.images
        fitting = [file for file in others if spelling_key(stem(file)) in stems]
        has_record = bool(folder.images) and find_record(above, folder.images[0])
        is_small = len(above.listing.files) <= _MAX_OUTER_FILES
        is_beside = has_record or any(_is_beside(parent(file), place) for file in fitting)
        if is_small and is_beside and _reads(above, stems):
            return above.path
    return None


_MAX_OUTER_FILES = 3000  # in a folder that is read only to see whether it is a data set


def _reads(folder: Folder, stems: Set[str]) -> bool:
    """Return whether a folder is a data set with annotated images of the given names."""
    problems = Problems(raise_errors=False)
    with contextlib.suppress(UserError, KeyError):  # KeyError: another program removes files at the same time
        counts = _count_annotated(folder)
        if not counts:
            return False
        data = Data(root=str(folder.path))
        module = import_folder_format_module(max(counts, key=lambda name: counts[name]))
        for name in module.split_names(folder, data) or (WHOLE,):
            source = module.open_split(folder, data, name, (), problems)
            named = (spelling_key(stem(Path(a.file).name)) for a in source.annotations() if len(a.labels))
            if not stems.isdisjoint(named):
                return True
    return False


def _is_beside(annotations: str, images: str) -> bool:
    """Return whether a folder of annotations is at the top, or is parallel to a folder of images."""
    return annotations.count("/") < 1 or folder_distance(annotations, images)[0] < 0

"""Build a source and report a missing split, in the same way for all formats."""

import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ssd_jax.data.formats.box_format import check_box_format
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import (
    AnnotationTable,
    CocoTruth,
    FolderSource,
    RawObject,
    annotation_from_objects,
    join_names,
)
from ssd_jax.errors import UserError

PUBLISHED = sys.maxsize
"""Number of annotated images that stands for a published data set in its original folders, which are not listed."""

WHOLE = ""
"""Name under which a folder format opens all images of a data set without splits."""


def missing_split_error(root: object, split: str, splits: Iterable[object], reason: str = "") -> UserError:
    """Return the error for a missing split, which lists the splits of the data set.

    The default reason is "there is no split ...".
    """
    return UserError(f"{root}: {reason or f'there is no split {split!r}'}. Available splits: {join_names(splits)}.")


class SplitBuilder:
    """Builder of a `FolderSource` from the images of a split, which are added one by one."""

    def __init__(self, class_names: Sequence[str], problems: Problems, *, box_format: str = "xyxy", place: object = ""):
        """Create a builder without images.

        Args:
            class_names: Names of the classes in the order of their labels.
            problems: Object that collects the problems of the added objects. The source gets notes about them.
            box_format: Meaning of the four numbers of a box in the files, one of `box_format.FORMATS`.
            place: Folder or file of the split, for messages about all of its boxes.
        """
        self._class_names = tuple(class_names)
        self._labels = {name: label for label, name in enumerate(self._class_names, start=1)}
        self._problems = problems
        self._annotations = AnnotationTable()
        self._box_format, self._place = box_format, place
        self._boxes, self._box_sizes = array("d"), array("d")  # less memory than lists of tuples

    def __len__(self) -> int:
        return len(self._annotations)

    def add(
        self,
        image_id: str,
        image: Path | str,
        size: tuple[int, int],
        objects: Iterable[RawObject],
        *,
        file: object,
        number: int | None = None,
    ) -> None:
        """Add an image with its objects.

        Args:
            image_id: Unique identifier of the image in the data set.
            image: Image file.
            size: Width and height of the upright image in pixels.
            objects: Objects as read from the file. An object of an unknown class or without an area becomes a problem.
            file: File that the objects were read from, for messages.
            number: Numeric id of the image in the data set, if it has one.

        Raises:
            UserError: If an object is of an unknown class, and ``problems`` raises errors.
        """
        objects = list(objects)
        for entry in objects:
            self._boxes.extend(entry.box_px)
            self._box_sizes.extend(size)
        self._annotations.append(
            annotation_from_objects(
                image_id, str(image), size, objects, self._labels, self._problems, file=file, number=number
            )
        )

    def build(
        self,
        *,
        notes: Iterable[str] = (),
        category_ids: Sequence[int] | None = None,
        coco_truth: CocoTruth | None = None,
        annotated: bool = True,
    ) -> FolderSource:
        """Return a source with the images that were added. The notes about problems precede ``notes``.

        Raises:
            UserError: If the boxes are in another format than stated, and ``problems`` raises errors.
        """
        boxes, sizes = np.asarray(self._boxes).reshape(-1, 4), np.asarray(self._box_sizes).reshape(-1, 2)
        check_box_format(boxes, sizes, self._box_format, self._problems, self._place)
        return FolderSource(
            self._annotations,
            self._class_names,
            [*self._problems.notes(), *notes],
            category_ids,
            coco_truth,
            annotated,
        )

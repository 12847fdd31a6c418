"""Find a split, split images by hash, and build a source, in the same way for all folder formats."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ssd_jax.data.problems import Problems
from ssd_jax.data.source import (
    Annotation,
    CocoTruth,
    FolderSource,
    RawObject,
    annotation_from_objects,
    join_names,
    split_aliases,
    split_by_hash,
)
from ssd_jax.errors import UserError

T = TypeVar("T")

HASHED_SPLITS = ("train", "val")
"""Splits of a folder that does not define any splits; `split_by_hash` assigns its images to them."""


def find_split(root: object, split: str, splits: Sequence[str]) -> str:
    """Return the name that a requested split has in a data set: the same name or an alias (val, valid, validation).

    Args:
        root: Folder or name of the data set, for the message.
        split: Requested name.
        splits: Names of the splits of the data set.

    Raises:
        UserError: If the data set has no such split.
    """
    name = next((alias for alias in split_aliases(split) if alias in splits), None)
    if name is None:
        raise missing_split_error(root, split, splits)
    return name


def missing_split_error(root: object, split: str, splits: Iterable[object], reason: str = "") -> UserError:
    """Return the error for a missing split, which lists the splits of the data set.

    The default reason is "there is no split ...".
    """
    return UserError(f"{root}: {reason or f'there is no split {split!r}'}. Available splits: {join_names(splits)}.")


def select_by_hash(items: Sequence[T], image_ids: Sequence[str], split: str, val_fraction: float) -> list[T]:
    """Return the items whose images `split_by_hash` assigns to a split.

    Args:
        items: One item for each image.
        image_ids: Id of each image.
        split: Name of the split, one of `HASHED_SPLITS`.
        val_fraction: Expected fraction of the images in val.
    """
    in_val = split_by_hash(image_ids, val_fraction)
    return [item for item, val in zip(items, in_val, strict=True) if val == (split == "val")]


class SplitBuilder:
    """Builder of a `FolderSource` from the images of a split, which are added one by one."""

    def __init__(self, class_names: Sequence[str], problems: Problems):
        """Create a builder without images.

        Args:
            class_names: Names of the classes in the order of their labels.
            problems: Object that collects the problems of the added objects. The source gets notes about them.
        """
        self._class_names = tuple(class_names)
        self._labels = {name: label for label, name in enumerate(self._class_names, start=1)}
        self._problems = problems
        self._annotations: list[Annotation] = []

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
        """Return a source with the images that were added. The notes about problems precede ``notes``."""
        return FolderSource(
            self._annotations,
            self._class_names,
            [*self._problems.notes(), *notes],
            category_ids,
            coco_truth,
            annotated,
        )

"""Count the contents of a data set, and find what makes them useless or doubtful for training, in any format.

Training and ``check-data`` share these checks. They need only the annotations.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_jax.config import Config
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import Annotation, Source, clip_box

_BACKGROUND_NAMES = ("background", "bg")
_MIN_SIDE_PX = 0.95  # a box of one pixel in normalised coordinates may be a little smaller because of rounding
_MANY_EMPTY = 0.1  # fraction of images without annotations
_RARE = 0.05  # number of objects of a misspelt class, relative to that of the correct class
_MIN_SIMILARITY = 0.8  # of names with at least five letters


class Place(NamedTuple):
    """Place of an image in a data set."""

    split: str
    """Name of the split."""
    source: Source
    position: int
    """Position of the image in the source."""

    def annotation(self) -> Annotation:
        """Return the annotation of the image."""
        return self.source.annotation(self.position)


class SplitCount(NamedTuple):
    """Numbers of images and objects in a split."""

    images: int
    """Number of images."""
    background: int
    """Number of images without objects, or with crowd objects only."""
    objects: dict[str, int]
    """Number of objects of each class, without crowd objects."""

    @property
    def total(self) -> int:
        """Number of objects of all classes."""
        return sum(self.objects.values())


def count_images_and_objects(source: Source) -> SplitCount:
    """Return the numbers of images, images without objects, and objects of each class in a split.

    Crowd objects are not counted.
    """
    counts = np.zeros(len(source.class_names), np.int64)
    background = 0
    for annotation in source.annotations():
        labels = annotation.labels[~annotation.crowd]
        counts += np.bincount(labels - 1, minlength=len(counts))
        background += len(labels) == 0
    return SplitCount(len(source), background, dict(zip(source.class_names, counts.tolist(), strict=True)))


def check_contents(
    splits: Mapping[str, Source], counts: Mapping[str, SplitCount], config: Config, problems: Problems
) -> None:
    """Add problems for a train or val split without objects, for doubtful classes, and for very small boxes.

    Args:
        splits: The splits by name; the first one is the train split.
        counts: Result of `count_images_and_objects` for each split.
        config: Config of the run.
        problems: Object that collects the problems.

    Raises:
        UserError: If the train split has no objects, and ``problems`` raises errors.
    """
    root, train, val = config.data.root, config.data.train_split, config.data.val_split
    # Objects that cannot be read have a problem of their own, so their absence is no second one.
    is_read = not any(p.kind in (Kind.MALFORMED, Kind.UNKNOWN_CLASS, Kind.MISSING) for p in problems.collected)
    if not counts[train].total and is_read:
        text = (
            f"the {counts[train].images} images of the split '{train}' have no object, so there is nothing to learn. "
            "Check that the annotation files have content, or choose another split with --data.train_split."
        )
        problems.add(Kind.NO_OBJECTS, root, text)
    is_needed = config.train.eval_every != 0 and val in counts and splits[val].annotated
    if is_needed and not counts[val].total and is_read:
        text = (
            f"the {counts[val].images} images of the split '{val}' have no object, so no best checkpoint can be "
            "chosen, and the last one counts as the best. Choose another split with --data.val_split."
        )
        problems.add(Kind.NO_BEST, root, text)
    if counts[train].total:
        check_class_counts(root, train, counts, problems)
        # In VOC's and YOLO's formats, an annotation file without content says that an image has no objects.
        if splits[train].coco_truth is not None and counts[train].background > _MANY_EMPTY * counts[train].images:
            text = (
                f"{counts[train].background} of the {counts[train].images} images of the split '{train}' have no "
                "annotation. Training treats them as background; if they show objects, annotate or remove them."
            )
            problems.add(Kind.MANY_EMPTY, root, text)
    check_class_names(root, _sum_by_class(counts), problems)
    for source in splits.values():
        for annotation in source.annotations():
            _check_box_sizes(annotation, source.class_names, problems)


def check_class_counts(root: str, train: str, counts: Mapping[str, SplitCount], problems: Problems) -> None:
    """Add problems for classes that have no object, or a single one, in the train split."""
    for name, count in counts[train].objects.items():
        others = [split for split, other in counts.items() if split != train and other.objects.get(name)]
        if count == 1:
            problems.add(Kind.ONE_OBJECT, root, f"'{name}'")
        elif count == 0:
            place = f"only in {' and '.join(others)}" if others else "in no split"
            problems.add(Kind.NOT_IN_TRAIN, root, f"'{name}' ({place})")


def check_class_names(root: str, objects: Mapping[str, int], problems: Problems) -> None:
    """Add problems for class names that stand for the background, or that are similar to another name.

    Names are similar if they differ only in case, spaces or punctuation; or if they differ in a few letters, and one of
    the classes is rare, so that its name is probably misspelt.

    Args:
        root: Folder of the data set.
        objects: Number of objects of each class in all splits.
        problems: Object that collects the problems.
    """
    spellings: dict[str, str] = {}
    for name, count in objects.items():
        spelling = "".join(letter for letter in name.casefold() if letter.isalnum()) or name
        if spelling in _BACKGROUND_NAMES:
            problems.add(Kind.BACKGROUND_CLASS, root, f"'{name}' ({count} objects)")
        if spelling in spellings:
            text = f"'{spellings[spelling]}' and '{name}' are two classes. If they mean the same, give them one name."
            problems.add(Kind.SIMILAR_NAMES, root, text)
        spellings.setdefault(spelling, name)
    for spelling, name in spellings.items():
        frequent = {s: n for s, n in spellings.items() if objects[name] <= _RARE * objects[n]} if objects[name] else {}
        # Digits at the end usually number the classes: type1 and type2 are no misspellings of each other.
        similar = [
            frequent[s]
            for s in difflib.get_close_matches(spelling, frequent, 1, _MIN_SIMILARITY)
            if len(spelling) >= 5 and not any(letter.isdigit() for letter in s + spelling)
        ]
        if similar:
            text = f"'{name}' ({objects[name]} objects) is similar to '{similar[0]}' ({objects[similar[0]]})"
            problems.add(Kind.SIMILAR_NAMES, root, text, "class names may be misspelt; correct them in the annotations")


def _sum_by_class(counts: Mapping[str, SplitCount]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for count in counts.values():
        for name, objects in count.objects.items():
            totals[name] = totals.get(name, 0) + objects
    return totals


def _check_box_sizes(annotation: Annotation, class_names: Sequence[str], problems: Problems) -> None:
    """Add a problem for each box whose part inside the image is narrower or lower than one pixel."""
    size = (annotation.width, annotation.height)
    corners = np.clip(annotation.boxes_px, 0, size * 2)
    for index in np.flatnonzero((corners[:, 2:] - corners[:, :2]).min(axis=1, initial=np.inf) < _MIN_SIDE_PX):
        left, top, right, bottom = clip_box(annotation.boxes_px[index].tolist(), size) or (0, 0, 0, 0)
        name = class_names[annotation.labels[index] - 1]
        text = f"({name} {left:g} {top:g}, {right - left:.3g} x {bottom - top:.3g} px)"
        problems.add(Kind.SLIVER, annotation.file, text)

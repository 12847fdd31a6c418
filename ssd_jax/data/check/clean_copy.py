"""Write a copy of a data set, in COCO's format and without the problems that can be corrected automatically."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.check.box_coverage import pairwise_iou
from ssd_jax.data.check.contents import Place
from ssd_jax.data.image import mode_and_orientation
from ssd_jax.data.problems import Kind, Problem
from ssd_jax.data.source import Source, clip_box
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, make_safe_file_name, write_text

SAME_IOU = 0.9
"""IoU above which boxes of two records of one image are the same box."""
_OTHER_FOLDER = "Name a new folder for the corrected copy."


def check_copy_folder(out: Path, root: Path) -> None:
    """Check that the folder for a copy of a data set is new or empty, and is not inside the data set.

    Raises:
        UserError: If the folder is not empty, or is inside ``root``.
    """
    with convert_write_errors(out, _OTHER_FOLDER):
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty. {_OTHER_FOLDER}")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out} is inside the data set, {root}. {_OTHER_FOLDER}")


_LOSES_OBJECTS = (Kind.MALFORMED, Kind.UNKNOWN_CLASS, Kind.UNUSABLE_SPLIT, Kind.NO_OBJECTS, Kind.BOX_FORMAT)


def check_annotations_readable(problems: Iterable[Problem]) -> None:
    """Check that every annotation and every split could be read.

    In a copy, the objects of an unreadable annotation would be missing, and training would treat them as background.

    Raises:
        UserError: If an annotation is malformed or of an unknown class, if a split cannot be opened, if there is no
            object, or if the boxes are in another format.
    """
    unread = [p for p in problems if p.kind in _LOSES_OBJECTS]
    if unread:
        number = f"{len(unread)} error{'s' * (len(unread) > 1)}"
        first = ", the first" * (len(unread) > 1)
        raise UserError(
            f"no corrected copy is written: because of {number}{first} in {unread[0].file}, objects would be missing "
            "from it and become background, or have wrong boxes. Correct the annotations first"
        )


def describe_copy(data: Data, out: Path) -> Data:
    """Return the options of a data set that are those of its corrected copy: the folder, and the names of its files."""
    names = (data.train_split, data.val_split, data.test_split)
    train, val, test = (make_safe_file_name(name) for name in names)
    return dataclasses.replace(
        data, root=str(out.absolute()), format="auto", train_split=train, val_split=val, test_split=test
    )


class CopyCount(NamedTuple):
    """Numbers of images and objects of a split that a copy contains."""

    images: int
    """Number of images in the copy."""
    objects: int
    """Number of objects in the copy."""
    merged: int
    """Number of images of the data set that were merged with another image with equal pixels, which has their
    objects."""
    dropped: int
    """Number of images that were left out because they cannot be read."""
    dropped_objects: int
    """Number of objects of the images that cannot be read."""


class _Object(NamedTuple):
    """An object, with its box clipped to the image."""

    box: tuple[float, float, float, float]
    name: str
    crowd: bool


def write_clean_copy(
    out: Path, splits: Mapping[str, Source], digests: Mapping[str, bytes], progress: Callable[[int], object]
) -> dict[str, CopyCount]:
    """Write a copy of a data set, in COCO's format and without the problems that can be corrected automatically.

    The files are ``annotations/instances_<split>.json`` and the images in ``images/<split>/``. Boxes are clipped to
    their image, and repeated boxes are left out (the sources already leave out boxes without an area). Unusable images
    are left out. Of several images with equal pixels, only one is kept, in the last of their splits, so that no image
    is used for both training and evaluation; it has the objects of all of them, see `merge_objects`. Images that are
    rotated by EXIF or are not RGB are written upright and in RGB; the files of all other images are copied.

    Args:
        out: The new folder.
        splits: The splits by name. Their classes may be in different orders.
        digests: Hashes of the usable images by file, from `checks.check_images`.
        progress: Function that is called with the number of images that were just processed.

    Returns:
        Numbers of images and objects of each split of the copy.

    Raises:
        UserError: If the folder cannot be written, if images with equal pixels have contradictory objects, or
            if a split would be empty.
    """
    places, dropped = _group_by_pixels(splits, digests)
    objects = {
        digest: merge_objects([(p.annotation().file, _read_objects(p)) for p in own]) for digest, own in places.items()
    }
    for split in splits:
        if not places:
            raise UserError("no corrected copy is written: none of the images is usable. Correct the errors above.")
        if not any(own[0].split == split for own in places.values()):
            raise UserError(
                f"no corrected copy is written: each usable image of the split '{split}' is also in a later split, so "
                "the split would be empty. Use separate images for each split."
            )
    counts = {}
    with _removed_on_failure(out):
        with convert_write_errors(out, _OTHER_FOLDER):
            (out / "annotations").mkdir(parents=True, exist_ok=True)
        for split, source in splits.items():
            kept = {own[0].position: objects[digest] for digest, own in places.items() if own[0].split == split}
            _write_split(out, make_safe_file_name(split), source, dict(sorted(kept.items())), progress)
            merged = sum(place.split == split for own in places.values() for place in own[1:])
            progress(merged + len(dropped[split]))
            counts[split] = CopyCount(
                len(kept), sum(map(len, kept.values())), merged, len(dropped[split]), sum(dropped[split])
            )
    return counts


@contextlib.contextmanager
def _removed_on_failure(out: Path) -> Iterator[None]:
    """Remove what the ``with`` block has written to a new or empty folder if it ends with an exception.

    After the user has freed some space, the same command then finds the folder empty again.
    """
    existed = out.exists()
    try:
        yield
    except BaseException:
        for path in out.iterdir() if out.exists() else ():
            shutil.rmtree(path, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _group_by_pixels(
    splits: Mapping[str, Source], digests: Mapping[str, bytes]
) -> tuple[dict[bytes, list[Place]], dict[str, list[int]]]:
    """Return the places of each image by its digest, and the number of objects of each unusable image by split.

    The first place of an image is in the last of its splits.
    """
    places: dict[bytes, list[Place]] = {}
    dropped: dict[str, list[int]] = {split: [] for split in splits}
    for split, source in reversed(list(splits.items())):
        for index, annotation in enumerate(source.annotations()):
            digest = digests.get(annotation.file)
            if digest is None:
                dropped[split].append(len(annotation.labels))
            else:
                places.setdefault(digest, []).append(Place(split, source, index))
    return places, dropped


def _read_objects(place: Place) -> list[_Object]:
    """Return the objects of an image with clipped boxes, without repeated objects."""
    annotation, names = place.annotation(), place.source.class_names
    rows = zip(annotation.boxes_px.tolist(), annotation.labels.tolist(), annotation.crowd.tolist(), strict=True)
    clipped = ((clip_box(box, (annotation.width, annotation.height)), label, crowd) for box, label, crowd in rows)
    return list(
        dict.fromkeys(_Object(box, names[label - 1], crowd) for box, label, crowd in clipped if box is not None)
    )


def merge_objects(records: Sequence[tuple[str, Sequence[_Object]]]) -> list[_Object]:
    """Return the objects of several records of one image, with each object once.

    An object is in two records if both have a box of its class, and the IoU of these boxes is above `SAME_IOU`. The box
    of the first of these records is kept.

    Args:
        records: Image file and objects of each record.

    Raises:
        UserError: If two records have boxes of different classes in the same place, so that one of them is wrong.
    """
    file, record = records[0]
    kept = [(file, entry) for entry in record]
    for file, record in records[1:]:
        in_kept = _find_same_boxes(record, [entry for _, entry in kept])
        in_own = _find_same_boxes(record, record)
        for entry, twins, own in zip(record, in_kept, in_own, strict=True):
            if any((twin.name, twin.crowd) == (entry.name, entry.crowd) for twin in twins):
                continue
            if twins and not {twin.name for twin in twins} & {twin.name for twin in own}:
                other = next(other for other, twin in kept if twin is twins[0])
                raise UserError(
                    f"no corrected copy is written: {file} and {other} have the same pixels, but the box "
                    f"{' '.join(f'{edge:g}' for edge in entry.box)} is of class '{entry.name}' in the first and of "
                    f"class '{twins[0].name}' in the second. Correct one of them, or remove one of the images."
                )
            kept.append((file, entry))
    return [entry for _, entry in kept]


def _find_same_boxes(objects: Sequence[_Object], others: Sequence[_Object]) -> list[list[_Object]]:
    """Return, for each object, those of the other objects whose box has an IoU above `SAME_IOU` with its box."""
    boxes, other_boxes = (np.array([o.box for o in group], np.float64).reshape(-1, 4) for group in (objects, others))
    # One row at a time, because all pairs of thousands of boxes would need much memory.
    rows = (pairwise_iou(box[None], other_boxes)[0] > SAME_IOU for box in boxes)
    return [[others[k] for k in np.flatnonzero(row).tolist()] for row in rows]


def _write_split(
    out: Path, split: str, source: Source, objects: Mapping[int, list[_Object]], progress: Callable[[int], object]
) -> None:
    """Write the images at some positions of a source, with their objects."""
    folder = out / "images" / split
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(source.class_names, start=1)]
    labels = {name: label for label, name in enumerate(source.class_names, start=1)}
    with convert_write_errors(folder):
        folder.mkdir(parents=True)
    for number, (index, own) in enumerate(objects.items(), start=1):
        annotation = source.annotation(index)
        target = _write_image(folder, source, index)
        entry = {"id": number, "file_name": target.name, "width": annotation.width, "height": annotation.height}
        content["images"].append(entry)
        for (left, top, right, bottom), name, crowd in own:
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number, "category_id": labels[name],
                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                "iscrowd": int(crowd),
            })  # fmt: skip
        progress(1)
    write_text(out / "annotations" / f"instances_{split}.json", msgspec.json.encode(content).decode())


def _write_image(folder: Path, source: Source, index: int) -> Path:
    """Write an image to a folder, and return the path of the new file.

    The file is copied if the image is RGB and upright. Otherwise it is encoded again, because other programs might
    read the original in another way.
    """
    annotation = source.annotation(index)
    stem, file = make_safe_file_name(annotation.image_id), Path(annotation.file)
    stem = stem.removesuffix(file.suffix)
    is_plain = file.is_file() and mode_and_orientation(file) == ("RGB", 1)
    is_lossy = file.suffix.lower() in (".jpg", ".jpeg")
    target = folder / f"{stem}{file.suffix.lower() if is_plain else '.jpg' if is_lossy else '.png'}"
    number = 2
    while target.exists():
        target, number = target.with_name(f"{stem}_{number}{target.suffix}"), number + 1
    with convert_write_errors(target):
        if is_plain:
            shutil.copyfile(file, target)
        else:
            Image.fromarray(np.asarray(source.image(index))).save(target, quality=95)
    return target
